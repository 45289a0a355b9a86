//! Clients: the unit of fairness.

use std::{
    fmt,
    net::{IpAddr, Ipv6Addr},
    num::NonZeroU32,
    sync::Arc,
};

/// The client that work is accounted to. Clients share the machine fairly; images of one client are served in order.
#[derive(Debug, Clone)]
pub struct Client {
    pub(super) id: ClientId,
    pub(super) weight: NonZeroU32,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum ClientId {
    Local,
    Address(IpAddr),
    Key(Arc<str>),
}

/// As the log has it: the key's name or the address, of an IPv6 address its /64 network.
impl fmt::Display for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.id {
            ClientId::Local => f.write_str("local"),
            ClientId::Address(IpAddr::V6(network)) => write!(f, "{network}/64"),
            ClientId::Address(address) => address.fmt(f),
            ClientId::Key(name) => f.write_str(name),
        }
    }
}

impl Client {
    /// This process itself, and callers that cannot be identified.
    pub const LOCAL: Self = Self { id: ClientId::Local, weight: NonZeroU32::MIN };

    /// The holder of an API key. A client of weight 2 gets twice the share of one of weight 1.
    pub fn key(name: impl Into<Arc<str>>, weight: NonZeroU32) -> Self {
        Self { id: ClientId::Key(name.into()), weight }
    }

    /// A caller without a key. IPv6 addresses are grouped by /64 network, the usual allocation of one subscriber.
    pub fn address(address: IpAddr) -> Self {
        Self { id: ClientId::Address(network(address)), weight: NonZeroU32::MIN }
    }
}

/// What counts as one address: of IPv6 the network that one site has (64 bits).
pub fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & (u128::MAX << 64))),
        v4 @ IpAddr::V4(_) => v4,
    }
}
