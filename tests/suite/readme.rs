//! README's first screen is correct: its picture is in the repository, and its JSON is the server's answer.

use std::{collections::BTreeSet, fs};

use reqwest::blocking::{Client, multipart::Form};
use serde_json::Value;

use crate::harness::{Server, golden, root};

#[test]
fn the_answer_in_the_readme_is_the_servers() {
    let readme = fs::read_to_string(root().join("README.md")).expect("README.md");
    let picture = readme.split("curl -F image=@").nth(1).and_then(|rest| rest.split_whitespace().next());
    let block = readme.split("```json").nth(1).and_then(|rest| rest.split("```").next()).expect("a JSON block");
    let expected: Value = serde_json::from_str(block).expect("the block is JSON");

    let document: Value = serde_json::from_str(&lfm_serve::api::openapi::document()).expect("JSON");
    let content = &document["paths"]["/v1/score"]["post"]["responses"]["200"]["content"];
    assert_eq!(content["application/json"]["example"], expected, "the API document has the same example");

    let server = Server::start(&["--sessions", "1"]);
    let form = Form::new().file("image", root().join(picture.expect("a curl line"))).expect("the picture");
    let response = Client::new().post(format!("{}/v1/score", server.url)).multipart(form).send().expect("an answer");
    let answer: Value = response.json().expect("JSON");

    let keys = |value: &Value| value.as_object().expect("an object").keys().cloned().collect::<Vec<_>>();
    assert_eq!(keys(&answer), keys(&expected));
    for (key, value) in answer.as_object().expect("an object") {
        match key.as_str() {
            // Different for each request.
            "id" => {}
            "timings_ms" => assert_eq!(keys(value), keys(&expected[key])),
            // ONNX Runtime selects kernels by CPU; another CPU changes the last bits.
            "logit" | "score" => {
                let (found, printed) = (value.as_f64().expect("a number"), expected[key].as_f64().expect("a number"));
                assert!((found - printed).abs() < 1e-3, "{key} is {found}, README says {printed}");
            }
            _ => assert_eq!(*value, expected[key], "{key}"),
        }
    }
}

#[test]
fn the_explanation_in_the_api_document_is_the_servers() {
    let document: Value = serde_json::from_str(&lfm_serve::api::openapi::document()).expect("JSON");
    let content = &document["paths"]["/v1/explain"]["post"]["responses"]["200"]["content"];
    let expected = &content["application/json"]["examples"]["rocket"]["value"]["attribution"];

    let server = Server::start(&["--sessions", "1"]);
    let request = Client::new().post(format!("{}/v1/explain", server.url)).body(golden("images/orig_rocket.jpg"));
    let answer: Value = request.send().expect("an answer").json().expect("JSON");
    let found = &answer["attribution"];

    assert_eq!(found["judged"], expected["judged"]);
    assert_eq!(expected["cells"].as_array().map(Vec::len), Some(3));
    for (found, expected) in [(found, expected), (&found["cells"][0], &expected["cells"][0])] {
        // The document's keys are sorted.
        let keys = |value: &Value| value.as_object().expect("an object").keys().cloned().collect::<BTreeSet<_>>();
        assert_eq!(keys(found), keys(expected));
    }
    let numbers = |map: &Value| -> Vec<f64> {
        let rows = map.as_array().expect("rows").iter();
        rows.flat_map(|row| row.as_array().expect("a row")).map(|place| place.as_f64().expect("a number")).collect()
    };
    let (found, expected) = (numbers(&found["map"]), numbers(&expected["map"]));
    assert_eq!((found.len(), expected.len()), (900, 900));
    assert!(found.iter().zip(&expected).all(|(found, expected)| (found - expected).abs() < 1e-3));
}
