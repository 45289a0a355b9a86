//! Shared by the tests: apps on port 0, the program as a process, the folders of reference data.

use std::{
    io::{self, BufRead, BufReader, ErrorKind, Read, Write},
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::{Child, ChildStderr, Command, ExitStatus, Stdio},
    sync::{Arc, OnceLock},
    time::Duration,
};

use clap::Parser;
use lfm_serve::{
    app::App,
    config::ServeConfig,
    model::{Execution, Manifest},
    scheduler::Pool,
};
use reqwest::{Client, RequestBuilder, Response, StatusCode};
use serde_json::Value;
use tokio::{net::TcpListener, sync::oneshot, task::JoinHandle};

use crate::fake::Fake;

/// The repository root.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A golden or hostile file's bytes.
pub fn golden(path: &str) -> Vec<u8> {
    let path = root().join("tests/golden").join(path);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// A valid picture: 64x64 PNG.
pub fn picture() -> Vec<u8> {
    golden("images/x_coffee_64.png")
}

/// The reference data beside the checkout; if it is absent the test prints SKIPPED and passes.
pub fn shared(test: &str) -> Option<PathBuf> {
    let folder = root().join("../shared");
    let there = folder.join("reference/golden/golden.json").is_file();
    if !there {
        // Not `eprintln!`: the output of a passing test is captured.
        let _ = writeln!(std::io::stderr(), "SKIPPED {test}: ../shared is not here");
    }
    there.then_some(folder)
}

/// The published model, imported from the published weights by `make import`, once per test run.
pub fn published_model(shared: &Path) -> &'static Path {
    static MODEL: OnceLock<PathBuf> = OnceLock::new();
    MODEL.get_or_init(|| {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("published-model");
        let weights = shared.join("reference/weights/lfm_bmvc2025.pth");
        let made = make_import(&weights, &folder);
        assert!(made.status.success(), "make import: {}", String::from_utf8_lossy(&made.stderr));
        folder
    })
}

/// Runs `make import`.
pub fn make_import(weights: &Path, model: &Path) -> std::process::Output {
    Command::new("make")
        .arg("import")
        .arg(format!("WEIGHTS={}", weights.display()))
        .arg(format!("MODEL={}", model.display()))
        // An outer make would pass its job server on.
        .env_remove("MAKEFLAGS")
        .current_dir(root())
        .output()
        .expect("make runs")
}

#[derive(Parser)]
struct Flags {
    #[command(flatten)]
    config: ServeConfig,
}

/// The settings of `lfm-serve serve FLAGS`.
pub fn config(flags: &[&str]) -> ServeConfig {
    let quick: &[&str] = if flags.contains(&"--drain-delay") { &[] } else { &["--drain-delay", "0s"] };
    Flags::try_parse_from([&["serve"], quick, flags].concat()).expect("the flags are right").config
}

/// The sessions of one model.
pub fn pool(sessions: Vec<Fake>) -> Pool<Fake> {
    let rebuild = sessions.first().expect("at least one session").rebuild();
    Pool { sessions, rebuild }
}

/// An app in this process, on a real socket, with fake sessions.
pub struct TestApp {
    pub app: App,
    pub address: SocketAddr,
    /// Where gRPC is served.
    pub grpc: SocketAddr,
    pub client: Client,
    stop: Option<oneshot::Sender<()>>,
    serving: JoinHandle<()>,
}

impl TestApp {
    /// An app whose sessions are `models`.
    pub async fn start(models: Vec<Fake>, flags: &[&str]) -> Self {
        let test = Self::starting(flags).await;
        test.app.start(vec![pool(models)]);
        test
    }

    /// An app that serves its probes and is not ready.
    pub async fn starting(flags: &[&str]) -> Self {
        let manifest = Arc::new(Manifest::read(&root().join("tests/data/model")).expect("the manifest of the tests"));
        Self::of(&[(manifest, Execution::CPU)], flags).await
    }

    /// The same, of these models.
    pub async fn of(models: &[(Arc<Manifest>, Execution)], flags: &[&str]) -> Self {
        let app = App::new(config(flags), models).expect("an app");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        // One connection per request: a reused one could be closed by the server at that moment.
        let client = Client::builder().pool_max_idle_per_host(0).build().expect("a client");
        let (stop, stopped) = oneshot::channel();
        let grpc_listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let grpc = grpc_listener.local_addr().expect("an address");
        let drain_delay = app.state.config.drain_delay;
        let serving = tokio::spawn({
            let app = app.clone();
            let stop = async move {
                let _ = stopped.await;
                drain_delay
            };
            async move { app.serve(listener.into(), Some(grpc_listener.into()), stop).await }
        });
        Self { app, address, grpc, client, stop: Some(stop), serving }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub fn post(&self, path: &str) -> RequestBuilder {
        self.client.post(self.url(path))
    }

    pub async fn get(&self, path: &str) -> Response {
        self.client.get(self.url(path)).send().await.expect("an answer")
    }

    /// Scores a picture.
    pub async fn score(&self, bytes: impl Into<reqwest::Body>) -> Response {
        self.post("/v1/score").body(bytes).send().await.expect("an answer")
    }

    /// The value of a series in /metrics, by its full name with labels.
    pub async fn metric(&self, series: &str) -> f64 {
        let text = self.get("/metrics").await.text().await.expect("text");
        let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no series {series} in\n{text}")).parse().expect("a number")
    }

    /// Asks the app to stop, as SIGTERM does.
    pub fn begin_stop(&mut self) {
        drop(self.stop.take());
    }

    /// Waits until the app has stopped.
    pub async fn stopped(mut self) {
        self.begin_stop();
        self.serving.await.expect("serving ends well");
    }
}

/// Checks all fields of an error answer, and returns its `detail`.
pub async fn assert_problem(response: Response, status: u16, code: &str) -> String {
    let got = response.status();
    let content_type = response.headers().get("content-type").cloned();
    let request_id = response.headers().get("x-request-id").cloned().expect("a request id");
    let body: Value = response.json().await.expect("a JSON body");
    assert_eq!(body["code"], code, "{body}");
    assert_eq!(got, StatusCode::from_u16(status).expect("a status"), "{body}");
    assert_eq!(content_type.expect("a content type"), "application/problem+json");
    assert_eq!(body["status"], status);
    assert_eq!(body["type"], format!("/errors#{code}"));
    assert_eq!(body["request_id"], request_id.to_str().expect("ASCII"));
    assert!(body["title"].as_str().is_some_and(|title| !title.is_empty()));
    body["detail"].as_str().expect("a detail").to_owned()
}

/// The program without arguments, isolated from the tester's environment.
pub fn program() -> Command {
    // Under nohup SIGHUP is ignored, and the program would inherit that.
    let mut command = Command::new("env");
    command.args(["--default-signal=HUP", env!("CARGO_BIN_EXE_lfm-serve")]);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("LFM_") {
            command.env_remove(name);
        }
    }
    command.current_dir(root());
    command
}

/// Runs the program to its end: exit code, standard output, standard error.
pub fn run(arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = program().args(arguments).output().expect("the program runs");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    (output.status.code(), text(output.stdout), text(output.stderr))
}

/// `lfm-serve serve` as a child process.
pub struct Server {
    process: Child,
    pub url: String,
}

impl Server {
    /// Starts it on a free port and waits for its first line.
    pub fn start(arguments: &[&str]) -> Self {
        Self::start_logging_to(Stdio::piped(), arguments)
    }

    /// The same, with its log redirected.
    pub fn start_logging_to(log: Stdio, arguments: &[&str]) -> Self {
        Self::spawn(program(), log, arguments)
    }

    /// The same, started by a shell script that gets the program's arguments.
    pub fn start_by(script: &str, arguments: &[&str]) -> Self {
        let program = program();
        let mut shell = Command::new("sh");
        shell.args(["-c", script, "sh"]).arg(program.get_program()).args(program.get_args()).current_dir(root());
        for (name, _) in program.get_envs() {
            shell.env_remove(name);
        }
        Self::spawn(shell, Stdio::null(), arguments)
    }

    fn spawn(mut program: Command, log: Stdio, arguments: &[&str]) -> Self {
        let mut process = program
            .args(["serve", "--listen", "127.0.0.1:0"])
            .args(["--drain-delay", "0s"].iter().filter(|_| !arguments.contains(&"--drain-delay")))
            .args(["--log-level", "warn"].iter().filter(|_| !arguments.contains(&"--log-level")))
            .args(arguments)
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .expect("the program starts");
        let mut line = String::new();
        BufReader::new(process.stdout.take().expect("a pipe")).read_line(&mut line).expect("a first line");
        let Some(url) = line.trim().strip_prefix("listening on ") else {
            let mut log = String::new();
            if let Some(mut stderr) = process.stderr.take() {
                let _ = stderr.read_to_string(&mut log);
            }
            panic!("the first line is {line:?}; the log:\n{log}");
        };
        let url = url.to_owned();
        Self { process, url }
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Resident memory in bytes.
    pub fn resident_bytes(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.id())).expect("a status");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
        line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") * 1024
    }

    /// Its log; only the caller reads it from then on.
    pub fn log(&mut self) -> BufReader<ChildStderr> {
        BufReader::new(self.process.stderr.take().expect("a pipe"))
    }

    /// Sends a signal.
    pub fn signal(&self, signal: &str) {
        let id = self.process.id().to_string();
        let sent = Command::new("kill").args([&format!("-{signal}"), &id]).status().expect("kill runs");
        assert!(sent.success());
    }

    /// Sends SIGTERM, waits for the end, and returns the log, unless [`Server::log`] took it.
    pub fn terminate(self) -> (ExitStatus, String) {
        self.end("TERM")
    }

    /// As [`Server::terminate`], with another signal.
    pub fn end(mut self, signal: &str) -> (ExitStatus, String) {
        self.signal(signal);
        let mut log = String::new();
        if let Some(mut stderr) = self.process.stderr.take() {
            let _ = stderr.read_to_string(&mut log);
        }
        (self.process.wait().expect("the process ends"), log)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A runtime with a paused clock, which advances when all tasks wait.
pub fn paused() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().expect("a runtime")
}

/// Longer than any expected wait: a test that reaches it has failed.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// `POST /v1/score` as bytes.
pub fn request(image: &[u8]) -> Vec<u8> {
    let head = format!("POST /v1/score HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n", image.len());
    [head.as_bytes(), image].concat()
}

/// Sends a request and reads its whole answer: its status, and whether the connection is to be closed.
pub fn exchange(socket: &mut TcpStream, request: &[u8]) -> io::Result<(u16, bool)> {
    socket.set_read_timeout(Some(PATIENCE))?;
    // An early answer may close the connection while the body is being sent: what counts is the answer.
    let sent = socket.write_all(request);
    let mut answer = Vec::new();
    loop {
        if let Some(end) = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&answer[..end]).to_ascii_lowercase();
            let field = |name: &str| head.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
            let length: usize = field("content-length:").and_then(|length| length.parse().ok()).expect("a length");
            if answer.len() >= end + 4 + length {
                let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
                return Ok((status, field("connection:") == Some("close")));
            }
        }
        let mut bytes = [0; 4096];
        match socket.read(&mut bytes)? {
            0 => {
                let how = format!("closed after {} bytes of the answer; sending: {sent:?}", answer.len());
                return Err(io::Error::new(ErrorKind::UnexpectedEof, how));
            }
            read => answer.extend_from_slice(&bytes[..read]),
        }
    }
}
