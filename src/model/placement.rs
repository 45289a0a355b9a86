//! Which execution provider runs which node of a session's graph. ONNX Runtime records it if the session is built
//! with `session.record_ep_graph_assignment_info` (onnxruntime_session_options_config_keys.h); `ort` has no safe
//! wrapper to read it.
#![allow(unsafe_code, reason = "calls into ONNX Runtime's C API")]

use std::{
    collections::BTreeMap,
    ffi::{CStr, c_char},
    ptr, slice,
};

use ort::{
    AsPointer,
    session::Session,
    sys::{OrtEpAssignedNode, OrtEpAssignedSubgraph, OrtStatusPtr},
};
use serde::Serialize;

/// A node of the graph, as it was when it was assigned to its provider.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AssignedNode {
    /// The execution provider, e.g. `CPUExecutionProvider`.
    pub provider: String,
    /// The node's name.
    pub name: String,
    /// The operator: `TYPE`, or `DOMAIN:TYPE` outside ONNX's own domain.
    pub operator: String,
}

/// The providers, each with the operators of its nodes, on one line.
pub fn summary(nodes: &[AssignedNode]) -> String {
    let mut providers: BTreeMap<&str, BTreeMap<&str, usize>> = BTreeMap::new();
    for AssignedNode { provider, operator, .. } in nodes {
        *providers.entry(provider).or_default().entry(operator).or_default() += 1;
    }
    let shown = providers.iter().map(|(provider, operators)| {
        let operators: Vec<_> = operators.iter().map(|(operator, count)| format!("{count} {operator}")).collect();
        format!("{provider}: {}", operators.join(", "))
    });
    shown.collect::<Vec<_>>().join("; ")
}

/// All nodes of a session's graph.
///
/// # Errors
/// If the session was built without the record.
pub(super) fn assigned_nodes(session: &Session) -> ort::Result<Vec<AssignedNode>> {
    let api = ort::api();
    // SAFETY: the session lives as long as the borrow; ONNX Runtime owns the array and keeps it as long as the
    // session (onnxruntime_c_api.h, Session_GetEpGraphAssignmentInfo).
    let subgraphs: &[*const OrtEpAssignedSubgraph] =
        unsafe { array(|first, count| (api.Session_GetEpGraphAssignmentInfo)(session.ptr(), first, count)) }?;
    let mut assigned = Vec::new();
    for &subgraph in subgraphs {
        // SAFETY: `subgraph` is one of the session's, and so are its name, its nodes and their texts.
        unsafe {
            let provider = text(|out| (api.EpAssignedSubgraph_GetEpName)(subgraph, out))?;
            let nodes: &[*const OrtEpAssignedNode] =
                array(|first, count| (api.EpAssignedSubgraph_GetNodes)(subgraph, first, count))?;
            for &node in nodes {
                let domain = text(|out| (api.EpAssignedNode_GetDomain)(node, out))?;
                let operator = text(|out| (api.EpAssignedNode_GetOperatorType)(node, out))?;
                assigned.push(AssignedNode {
                    provider: provider.clone(),
                    name: text(|out| (api.EpAssignedNode_GetName)(node, out))?,
                    operator: if domain.is_empty() { operator } else { format!("{domain}:{operator}") },
                });
            }
        }
    }
    Ok(assigned)
}

/// The array that an API function returns in two out parameters.
///
/// # Safety
/// If the function succeeds, the array must live for `'a`.
unsafe fn array<'a, T>(get: impl FnOnce(*mut *const T, *mut usize) -> OrtStatusPtr) -> ort::Result<&'a [T]> {
    let (mut first, mut count) = (ptr::null(), 0);
    // SAFETY: the status is what the API just returned.
    unsafe { ort::Error::result_from_status(get(&mut first, &mut count)) }?;
    // SAFETY: `first` points at `count` elements as the caller promises; an empty array may be null.
    Ok(if first.is_null() { &[] } else { unsafe { slice::from_raw_parts(first, count) } })
}

/// A copy of the C string that an API function returns in its out parameter.
///
/// # Safety
/// If the function succeeds, the string must be valid until this returns.
unsafe fn text(get: impl FnOnce(*mut *const c_char) -> OrtStatusPtr) -> ort::Result<String> {
    let mut start = ptr::null();
    // SAFETY: the status is what the API just returned.
    unsafe { ort::Error::result_from_status(get(&mut start)) }?;
    if start.is_null() {
        return Ok(String::new());
    }
    // SAFETY: not null, and null-terminated like every string of the API.
    Ok(unsafe { CStr::from_ptr(start) }.to_string_lossy().into_owned())
}
