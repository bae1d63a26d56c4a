//! Listening sockets that whoever started this process opened for it (systemd's protocol: `LISTEN_PID`, `LISTEN_FDS`). They
//! outlive the process, so that a restart refuses nobody: what comes in between waits in them. Accepts nothing.

use std::net::{SocketAddr, TcpListener};
use std::os::fd::{FromRawFd as _, OwnedFd, RawFd};
use std::sync::OnceLock;

use rustix::io::{FdFlags, fcntl_getfd, fcntl_setfd};
use socket2::{Socket, Type};

/// The first of them; the others follow.
const FIRST: RawFd = 3;
/// More than anybody passes; a number over it is a mistake.
const MOST: RawFd = 256;

/// A socket that listens already.
#[derive(Debug)]
struct Inherited {
    address: SocketAddr,
    socket: TcpListener,
}

/// Held for as long as the process lives: a listener that is configured anew finds its socket again.
static ALL: OnceLock<Vec<Inherited>> = OnceLock::new();

/// Takes what was passed. To be called once, at the beginning.
pub(crate) fn take() {
    let count = passed(|name| std::env::var(name).ok(), std::process::id());
    let sockets = (FIRST..FIRST + count).filter_map(inherit).collect();
    let all: &Vec<Inherited> = ALL.get_or_init(|| sockets);
    for inherited in all {
        tracing::info!(address = %inherited.address, "a listening socket was passed to this process");
    }
}

/// How many sockets were passed to this process, and not to one that it descends from.
fn passed(variable: impl Fn(&str) -> Option<String>, own: u32) -> RawFd {
    let number = |name| variable(name)?.parse().ok();
    if number("LISTEN_PID") != Some(own) {
        return 0;
    }
    let count = number("LISTEN_FDS").and_then(|count| RawFd::try_from(count).ok());
    count.unwrap_or(0).min(MOST)
}

#[expect(
    unsafe_code,
    reason = "a descriptor that was passed is known by its number alone"
)]
fn inherit(number: RawFd) -> Option<Inherited> {
    // SAFETY: it is only asked whether there is such a descriptor, and only for as long as the line takes.
    let open = fcntl_getfd(unsafe { std::os::fd::BorrowedFd::borrow_raw(number) }).is_ok();
    if !open {
        tracing::warn!(
            number,
            "a listening socket was announced (`LISTEN_FDS`) and not passed"
        );
        return None;
    }
    // SAFETY: it is open, and `LISTEN_PID` says that it was opened for this process. The process has had it since it
    // began, so that nothing that it opened itself has this number, and each number is taken once.
    let passed = unsafe { OwnedFd::from_raw_fd(number) };
    // Processes that are started from here have no business with it.
    let _ = fcntl_setfd(&passed, FdFlags::CLOEXEC);
    let socket = Socket::from(passed);
    let listens =
        socket.r#type().is_ok_and(|it| it == Type::STREAM) && socket.is_listener().unwrap_or(false);
    let address = socket.local_addr().ok().and_then(|it| it.as_socket());
    let Some(address) = address.filter(|_| listens) else {
        tracing::warn!(
            number,
            "a descriptor that was passed is no listening TCP socket and is not used"
        );
        return None;
    };
    Some(Inherited {
        address,
        socket: socket.into(),
    })
}

/// A socket that was passed for this address.
pub(crate) fn find(address: SocketAddr) -> Option<&'static TcpListener> {
    let all = ALL.get()?;
    let found = all
        .iter()
        .find(|inherited| is_for(inherited.address, address))?;
    Some(&found.socket)
}

/// The addresses that were passed and that none of these asks for.
pub(crate) fn unused(wanted: &[SocketAddr]) -> Vec<SocketAddr> {
    let all = ALL.get().map(Vec::as_slice).unwrap_or_default();
    let addresses = all.iter().map(|inherited| inherited.address);
    addresses
        .filter(|passed| !wanted.iter().any(|wanted| is_for(*passed, *wanted)))
        .collect()
}

/// Whether a socket listens where it is wanted. One for all addresses of IPv6 mostly is one for those of IPv4 too.
fn is_for(passed: SocketAddr, wanted: SocketAddr) -> bool {
    passed == wanted
        || (passed.port() == wanted.port()
            && passed.is_ipv6()
            && passed.ip().is_unspecified()
            && wanted.ip().is_unspecified())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_passed_to_somebody_else_is_not_taken() {
        let passed_by = |pid: &str, count: &str| {
            let (pid, count) = (pid.to_owned(), count.to_owned());
            passed(
                move |name| match name {
                    "LISTEN_PID" => Some(pid.clone()),
                    "LISTEN_FDS" => Some(count.clone()),
                    _ => None,
                },
                42,
            )
        };
        assert_eq!(passed_by("42", "2"), 2);
        assert_eq!(passed_by("41", "2"), 0);
        assert_eq!(passed_by("", "2"), 0);
        assert_eq!(passed_by("42", "-1"), 0);
        assert_eq!(passed_by("42", "many"), 0);
        assert_eq!(passed_by("42", "100000"), MOST);
        assert_eq!(passed(|_| None, 42), 0);
    }

    #[test]
    fn a_socket_is_for_its_own_address_or_for_all() {
        let fits =
            |passed: &str, wanted: &str| is_for(passed.parse().unwrap(), wanted.parse().unwrap());
        assert!(fits("127.0.0.1:80", "127.0.0.1:80"));
        assert!(!fits("127.0.0.1:80", "127.0.0.1:81"));
        assert!(fits("[::]:80", "0.0.0.0:80"));
        assert!(fits("[::]:80", "[::]:80"));
        assert!(!fits("0.0.0.0:80", "[::]:80"));
        assert!(!fits("[::]:80", "127.0.0.1:80"));
    }
}
