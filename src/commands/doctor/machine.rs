//! The machine: its CPU, the kernel's limits, and whether they are enough for the settings.

use std::fs;

use bytesize::ByteSize;

use super::{
    Imported,
    limits::Limits,
    report::{Bytes, Finding},
};
use crate::{
    config::ServeConfig,
    conv,
    image::Preprocessing,
    model::{self, Provider},
    scheduler::memory::{Memory, ModelMemory, SessionMemory},
    server::MOST_CONNECTIONS,
    topk,
};

/// The CPU, its vector extensions, and the kernels that run on them.
pub(super) fn cpu() -> Finding {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    let model = model.map_or("unknown CPU", |(_, name)| name.trim());
    let features = features();
    let features = if features.is_empty() { "no vector extensions".into() } else { features.join(" ") };
    let (convolutions, topk) = (conv::Kernel::fastest().name(), topk::Kernel::fastest().name());
    let detail =
        format!("{model}; {features}; kernels: convolutions {convolutions}, Top-K {topk}; {} CPUs", model::cpus());
    if topk::Kernel::avx2().is_some() {
        Finding::ok(detail)
    } else {
        Finding::warn(format!("{detail}; without AVX2 Top-K and resizing take several times as long"))
    }
}

fn features() -> Vec<&'static str> {
    let mut features = Vec::new();
    #[cfg(target_arch = "x86_64")]
    {
        macro_rules! detected {
            ($($name:tt)*) => { $(if is_x86_feature_detected!($name) { features.push($name); })* };
        }
        detected!("sse4.2" "avx" "avx2" "fma" "avx512f" "avx512bw" "avx512vnni" "avxvnni");
    }
    features
}

/// The kernel's limits, and whether the sessions fit the CPUs.
pub(super) fn limits(limits: &Limits, config: &ServeConfig) -> Finding {
    let quota = limits.cpu_quota.map_or("no CPU quota".into(), |cpus| format!("a quota of {cpus:.2} CPUs"));
    let memory = limits
        .memory
        .as_ref()
        .map_or("memory unknown".into(), |(bytes, source)| format!("{} of memory ({source})", ByteSize(*bytes)));
    let detail = format!("{quota}; {memory}");
    let (sessions, threads) = (sessions(config), config.runtime.intra_threads.or_else(|| 1));
    if sessions.saturating_mul(threads) > model::cpus() {
        let cpus = model::cpus();
        return Finding::warn(format!("{detail}; {sessions} sessions of {threads} threads share {cpus} CPUs"));
    }
    Finding::ok(detail)
}

/// What a model's sessions take under these settings, an imported one's by its weights alone. One that cannot be read is
/// taken for LFM: what is wrong with it another check says.
pub(super) fn needs(config: &ServeConfig, imported: Option<&Imported>) -> ModelMemory {
    match imported {
        Some(&Imported { preprocessing, graph }) => ModelMemory { session: SessionMemory::each(graph), preprocessing },
        None => {
            let batch = config.max_batch_size.or_else(|| Provider::Cpu.largest_tried());
            ModelMemory { session: SessionMemory::lfm(batch as u64), preprocessing: Preprocessing::Crop }
        }
    }
}

/// Whether `serve` with these settings has enough memory for such models.
pub(super) fn memory(limits: &Limits, config: &ServeConfig, models: &[ModelMemory]) -> Finding {
    let memory = memory_of(config, models);
    let (start, heaviest) = (memory.at_start(), memory.most());
    let sessions = sessions(config) * models.len();
    let (start_text, heaviest_text) = (ByteSize(start), ByteSize(heaviest));
    let need = format!(
        "serve needs {start_text} for {sessions} sessions, {heaviest_text} under the heaviest load that its settings admit"
    );
    let limit = limits.memory.as_ref().map(|(limit, _)| *limit);
    let finding = match (&limits.memory, limits.available) {
        (Some((limit, source)), _) if *limit < start => {
            Finding::fail(format!("{need}; the limit is {} ({source})", ByteSize(*limit)))
        }
        (Some((limit, source)), _) if *limit < heaviest => Finding::warn(format!(
            "{need}; the limit is {} ({source}): lower --max-pixels, --max-admitted-bytes or --sessions",
            ByteSize(*limit)
        )),
        (_, Some(available)) if available < start => {
            Finding::warn(format!("{need}; only {} is free now", ByteSize(available)))
        }
        _ => Finding::ok(need),
    };
    finding.with_bytes(Bytes { at_start: start, most: heaviest, limit, available: limits.available })
}

/// The settings that determine the memory of `serve`.
fn memory_of(config: &ServeConfig, models: &[ModelMemory]) -> Memory {
    let sessions = sessions(config);
    Memory {
        models: models.to_vec(),
        sessions: sessions as u64,
        max_admitted_bytes: config.max_admitted_bytes.as_u64(),
        max_pixels: config.limits.max_pixels.0,
        max_in_flight: config.max_in_flight(sessions) as u64,
        max_connections: config.max_connections.or_else(|| MOST_CONNECTIONS) as u64,
    }
}

/// Sessions of each model.
fn sessions(config: &ServeConfig) -> usize {
    config.runtime.sessions.or_else(model::cpus)
}
