//! Where a request comes from: what callers without an API key share the machine by.

use std::net::{IpAddr, SocketAddr};

use axum::{
    extract::{ConnectInfo, Request},
    http::{HeaderMap, HeaderName, header},
};

use crate::scheduler::Client;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The caller of a request behind `proxies` reverse proxies that are trusted.
pub(super) fn of(request: &Request, proxies: usize) -> Client {
    let peer = request.extensions().get::<ConnectInfo<SocketAddr>>().map(|ConnectInfo(peer)| peer.ip());
    let forwarded = if proxies > 0 { forwarded(request.headers(), proxies) } else { None };
    forwarded.or(peer).map_or(Client::LOCAL, Client::address)
}

/// The address that the outermost of `proxies` saw. Each appends what it saw, so the last ones are theirs; what stands
/// before them the caller may have made up.
fn forwarded(headers: &HeaderMap, proxies: usize) -> Option<IpAddr> {
    let list = |name| {
        let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
        values.flat_map(|value| value.split(',')).map(str::trim).collect::<Vec<_>>()
    };
    let x_forwarded_for = list(X_FORWARDED_FOR);
    let (seen, parse): (_, fn(&str) -> Option<IpAddr>) = if x_forwarded_for.is_empty() {
        (list(header::FORWARDED), forwarded_element)
    } else {
        (x_forwarded_for, address)
    };
    parse(seen.get(seen.len().checked_sub(proxies)?)?)
}

/// The `for` of an element of `Forwarded` (RFC 7239 section 4).
fn forwarded_element(element: &str) -> Option<IpAddr> {
    let mut pairs = element.split(';').filter_map(|pair| pair.split_once('='));
    let (_, node) = pairs.find(|(name, _)| name.trim().eq_ignore_ascii_case("for"))?;
    address(node.trim().trim_matches('"'))
}

/// An address with or without a port; IPv6 also in brackets.
fn address(node: &str) -> Option<IpAddr> {
    let bare = node.strip_prefix('[').and_then(|node| node.strip_suffix(']')).unwrap_or(node);
    bare.parse().ok().or_else(|| node.parse::<SocketAddr>().ok().map(|node| node.ip()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(lines: &[(HeaderName, &str)], proxies: usize) -> Option<String> {
        let headers = lines.iter().map(|(name, value)| (name.clone(), value.parse().expect("a value"))).collect();
        forwarded(&headers, proxies).map(|address| address.to_string())
    }

    #[test]
    fn the_outermost_trusted_proxy_says_where_a_request_comes_from() {
        let x = |value| (X_FORWARDED_FOR, value);
        let spoofed = [x("10.0.0.1, 192.0.2.7"), x("198.51.100.2")];
        assert_eq!(seen(&spoofed, 1).as_deref(), Some("198.51.100.2"));
        assert_eq!(seen(&spoofed, 2).as_deref(), Some("192.0.2.7"));
        // Fewer addresses than proxies: it did not come through them.
        assert_eq!(seen(&spoofed, 4), None);
        assert_eq!(seen(&[], 1), None);
        assert_eq!(seen(&[x("unknown")], 1), None);
        assert_eq!(seen(&[x("[2001:db8::1]:443")], 1).as_deref(), Some("2001:db8::1"));
        assert_eq!(seen(&[x("192.0.2.7:1234")], 1).as_deref(), Some("192.0.2.7"));
    }

    #[test]
    fn forwarded_counts_where_there_is_no_x_forwarded_for() {
        let line = (header::FORWARDED, r#"for=10.0.0.1, proto=https;For="[2001:db8::2]:80";by=unknown"#);
        assert_eq!(seen(std::slice::from_ref(&line), 1).as_deref(), Some("2001:db8::2"));
        assert_eq!(seen(std::slice::from_ref(&line), 2).as_deref(), Some("10.0.0.1"));
        assert_eq!(seen(&[line, (X_FORWARDED_FOR, "192.0.2.7")], 1).as_deref(), Some("192.0.2.7"));
    }
}
