//! `lfm-serve errors`: the table of error codes, in Markdown. docs/errors.md is its output.

use crate::error::Code;

const HEAD: &str = "\
# Errors

<!-- Made by `lfm-serve errors` from src/error.rs; a test compares the two. -->

An error answer is `application/problem+json` (RFC 9457): `type`, `title`, `status`, `detail`, `code`, `request_id`. `code`
is one of the codes below and has one HTTP status each; `type` is `/errors#CODE`, a page of the server with this text.
`detail` says what happened this time, in one sentence for people: it can change, so programs use `code`. In a batch an
image's own error has `code` and `detail`; `lfm-serve score` prints the same two.

Every error answer, of `/v2` and of gRPC too, has the request id in the header `X-Request-Id` (gRPC: in the metadata), and the
access line has it. The exception is an answer to bytes that are no HTTP request: 400, or 431 for a head over 32 KiB, with an
empty body, comes from the HTTP library before there is a request.

| code | status | meaning | what to do |
|---|---|---|---|
";

/// The document.
pub(super) fn document() -> String {
    let row =
        |code: &Code| format!("| `{}` | {} | {}. | {} |\n", code.as_str(), code.status(), code.title(), code.remedy());
    HEAD.to_owned() + &Code::ALL.iter().map(row).collect::<String>()
}
