//! The pages at `/`, `/docs` and `/errors`: embedded in the binary, with a strict policy, without requests to other
//! hosts. tests/clients tests them in browsers.

use crate::{
    fake::Fake,
    harness::{TestApp, assert_problem},
};

#[tokio::test]
async fn the_pages_load_only_from_the_server() {
    let app = TestApp::start(vec![Fake::instant()], &[]).await;
    let mut todo = vec!["/".to_owned(), "/docs".to_owned(), "/errors".to_owned(), "/assets/overlay.js".to_owned()];
    let mut seen = Vec::new();
    while let Some(path) = todo.pop() {
        let answer = app.get(&path).await;
        assert_eq!(answer.status(), 200, "{path}");
        let policy = answer.headers()["content-security-policy"].to_str().expect("ASCII");
        assert!(policy.starts_with("default-src 'none'; script-src 'self'"), "{policy}");
        assert!(!policy.contains("unsafe"), "{policy}");
        assert_eq!(answer.headers()["x-content-type-options"], "nosniff");
        let media_type = answer.headers()["content-type"].to_str().expect("ASCII").to_owned();
        let text = answer.text().await.expect("text");
        // The icon's namespace is a name, not an address.
        let foreign = text.replace("http://www.w3.org/2000/svg", "");
        assert!(!foreign.contains("http://") && !foreign.contains("https://"), "{path} names another host");
        if media_type.starts_with("text/html") {
            let loads = text.split(['"']).filter(|word| word.starts_with("assets/"));
            todo.extend(loads.map(|word| format!("/{word}")).filter(|path| !seen.contains(path)));
            // The page contains nothing that the policy would block.
            assert!(!text.contains("style=") && !text.contains("<style") && !text.contains("<script>"), "{path}");
        }
        seen.push(path);
    }
    assert!(seen.len() >= 6, "{seen:?}");
    assert_problem(app.get("/assets/none.js").await, 404, "not_found").await;
}
