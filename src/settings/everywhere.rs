//! Listening on every address of a machine, whichever families of addresses it has.
//!
//! `::` means every address of both families. A machine may have been started without IPv6: there it means every one of IPv4.
//! Who binds, and how, is said by the caller: nothing here opens a socket.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::io;

/// Linux: address family not supported.
const EAFNOSUPPORT: i32 = 97;

/// Binds an address, or what it means on a machine without IPv6.
///
/// # Errors
/// When that fails.
pub fn bind_everywhere<T>(address: SocketAddr, bind: impl Fn(SocketAddr) -> io::Result<T>) -> io::Result<T> {
    let means_all = address.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED);
    bind(address).or_else(|error| match means_all && lacks_ipv6(&error) {
        true => bind(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), address.port())),
        false => Err(error),
    })
}

fn lacks_ipv6(error: &io::Error) -> bool {
    error.raw_os_error() == Some(EAFNOSUPPORT) || error.kind() == io::ErrorKind::AddrNotAvailable
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a machine of IPv4 alone binds for an address.
    fn bound(address: &str, failure: impl Fn() -> io::Error) -> io::Result<String> {
        bind_everywhere(address.parse().expect("an address"), |address| match address.is_ipv4() {
            true => Ok(address.to_string()),
            false => Err(failure()),
        })
    }

    #[test]
    fn every_address_is_every_one_that_there_is() {
        let without = || io::Error::from_raw_os_error(EAFNOSUPPORT);
        assert_eq!(bound("[::]:8080", without).ok().as_deref(), Some("0.0.0.0:8080"));
        let not_here = || io::ErrorKind::AddrNotAvailable.into();
        assert_eq!(bound("[::]:8080", not_here).ok().as_deref(), Some("0.0.0.0:8080"));
        assert!(bound("[::1]:8080", without).is_err(), "one address is no other one");
        let taken = || io::ErrorKind::AddrInUse.into();
        assert!(bound("[::]:8080", taken).is_err(), "what is taken is not taken in another way");
    }

    #[test]
    fn the_number_is_that_of_this_system() {
        assert_eq!(
            io::Error::from_raw_os_error(EAFNOSUPPORT).to_string().split(" (").next(),
            Some("Address family not supported by protocol")
        );
    }
}
