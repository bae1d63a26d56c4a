//! Addresses to listen on: `listen`, `admin` and those of `[[server.tls]]`. It opens none of them.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use super::super::Admin;
use super::super::checked::TlsListener;
use super::Resolver;
use crate::diagnostic::Mistake;

const DEFAULT_LISTEN: &str = "127.0.0.1:8080";

/// Which addresses are taken, and by what.
#[derive(Default)]
struct Taken {
    by: HashMap<SocketAddr, (String, &'static str)>,
}

impl Resolver<'_> {
    /// All addresses, and the files of certificates and keys.
    pub(super) fn listeners(
        &mut self,
    ) -> (
        Vec<SocketAddr>,
        Vec<TlsListener>,
        Option<SocketAddr>,
        Vec<PathBuf>,
    ) {
        let mut taken = Taken::default();
        let listen = self.clear(&mut taken);
        let (tls, files) = self.tls_listeners(&mut taken);
        let admin = self.admin(&mut taken);
        let server = &self.written.server;
        let none = server.listen.as_ref().is_some_and(Vec::is_empty);
        if listen.is_empty() && none && server.tls.is_empty() && !self.is_uncertain("/server/tls") {
            let mistake = self
                .at_key("/server/listen", "there is no address to listen on")
                .help(format!("add one: `listen = [\"{DEFAULT_LISTEN}\"]`"));
            self.notes.mistake(mistake);
        }
        (listen, tls, admin, files)
    }

    fn clear(&mut self, taken: &mut Taken) -> Vec<SocketAddr> {
        if !self.options.listen.is_empty() {
            for address in &self.options.listen {
                if let Err((_, by)) = taken.take(*address, "--listen", "by `--listen`") {
                    let message = format!("{address} is taken already {by}");
                    self.notes.mistake(Mistake::of("--listen", &message));
                }
            }
            return self.options.listen.clone();
        }
        let Some(written) = &self.written.server.listen else {
            let default = DEFAULT_LISTEN.parse().ok();
            let wanted = self.written.server.tls.is_empty() && !self.is_uncertain("/server/tls");
            return default.filter(|_| wanted).into_iter().collect();
        };
        let mut addresses = Vec::new();
        for (index, text) in written.iter().enumerate() {
            let pointer = format!("/server/listen/{index}");
            if let Some(address) = self.address(&pointer, text)
                && self.take(taken, address, &pointer, "by `listen`")
            {
                addresses.push(address);
            }
        }
        addresses
    }

    fn tls_listeners(&mut self, taken: &mut Taken) -> (Vec<TlsListener>, Vec<PathBuf>) {
        let mut listeners: Vec<TlsListener> = Vec::new();
        let mut files = Vec::new();
        for (entry, written) in self.written.server.tls.iter().enumerate() {
            let pointer = format!("/server/tls/{entry}");
            let identity = self.identity(&pointer, written, &mut files);
            let mut own = Vec::new();
            for (index, text) in written.listen.iter().enumerate() {
                let pointer = format!("{pointer}/listen/{index}");
                let Some(address) = self.address(&pointer, text) else {
                    continue;
                };
                let known = listeners
                    .iter_mut()
                    .find(|listener| listener.listen == address && address.port() != 0);
                if let Some(listener) = known
                    && !own.contains(&address)
                {
                    listener.identities.extend(identity.clone());
                } else if self.take(taken, address, &pointer, "by `[[server.tls]]`") {
                    listeners.push(TlsListener {
                        listen: address,
                        identities: identity.clone().into_iter().collect(),
                    });
                }
                own.push(address);
            }
        }
        (listeners, files)
    }

    fn admin(&mut self, taken: &mut Taken) -> Option<SocketAddr> {
        let pointer = "/server/admin";
        let address = match self.options.admin {
            Some(Admin::Off) => return None,
            Some(Admin::At(address)) => {
                if let Err((_, by)) = taken.take(address, "--admin", "by `--admin`") {
                    let message = format!("{address} is taken already {by}");
                    self.notes.mistake(Mistake::of("--admin", &message));
                }
                address
            }
            None if self.written.server.admin == "off" => return None,
            None => {
                let address = self.address(pointer, &self.written.server.admin)?;
                self.take(taken, address, pointer, "by `admin`");
                address
            }
        };
        if !address.ip().is_loopback() {
            let warning = self.at(
                pointer,
                &format!("other machines can reach the admin pages at {address}, which ask for no password"),
            );
            self.notes.warn(warning);
        }
        Some(address)
    }

    /// Takes an address of the file, or notes that it is taken.
    fn take(
        &mut self,
        taken: &mut Taken,
        address: SocketAddr,
        pointer: &str,
        by: &'static str,
    ) -> bool {
        let Err((other, by)) = taken.take(address, pointer, by) else {
            return true;
        };
        let mut mistake = self.at(pointer, &format!("{address} is taken already {by}"));
        if let Some(document) = self.document
            && document.has(&other)
        {
            mistake = mistake.other(document.place(&other), "it is taken here");
        }
        self.notes.mistake(mistake);
        false
    }

    /// An address with a port.
    fn address(&mut self, pointer: &str, text: &str) -> Option<SocketAddr> {
        if let Ok(address) = text.parse() {
            return Some(address);
        }
        let wrong = "is not an address with a port";
        let mistake = self.wrong_text(pointer, text, wrong, &address_help(text));
        self.notes.mistake(mistake);
        None
    }
}

impl Taken {
    /// Takes an address; the error says where and by what it is taken. Port 0 is a new one each time. All addresses
    /// of a family include each of them.
    fn take(
        &mut self,
        address: SocketAddr,
        pointer: &str,
        by: &'static str,
    ) -> Result<(), (String, &'static str)> {
        if address.port() == 0 {
            return Ok(());
        }
        let same = |other: &SocketAddr| {
            let overlap = other.ip().is_unspecified() || address.ip().is_unspecified();
            let family = other.is_ipv4() == address.is_ipv4();
            other.port() == address.port() && (other.ip() == address.ip() || (overlap && family))
        };
        if let Some((_, (pointer, by))) = self.by.iter().find(|(other, _)| same(other)) {
            return Err((pointer.clone(), by));
        }
        self.by.insert(address, (pointer.to_owned(), by));
        Ok(())
    }
}

/// What was probably meant by something that is no address.
pub(crate) fn address_help(text: &str) -> String {
    if let Some(port) = text.strip_prefix(':').or_else(|| text.strip_prefix("*:"))
        && port.parse::<u16>().is_ok()
    {
        return format!(
            "write \"0.0.0.0:{port}\" for all addresses, or \"127.0.0.1:{port}\" for this machine"
        );
    }
    if let Some(port) = text.strip_prefix("localhost:")
        && port.parse::<u16>().is_ok()
    {
        return format!("write \"127.0.0.1:{port}\"");
    }
    if text.parse::<u16>().is_ok() {
        return format!("write \"127.0.0.1:{text}\"");
    }
    match text.parse::<IpAddr>() {
        Ok(address) => format!("add a port: \"{}\"", SocketAddr::new(address, 8080)),
        Err(_) => "write it as \"127.0.0.1:8080\" or \"[::1]:8080\"".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_taken_once() {
        let mut taken = Taken::default();
        let mut take = |text: &str| taken.take(text.parse().unwrap(), text, "by").is_ok();
        assert!(take("127.0.0.1:80"));
        assert!(!take("127.0.0.1:80"));
        assert!(!take("0.0.0.0:80"));
        assert!(take("[::]:80"));
        assert!(!take("[::1]:80"));
        assert!(take("127.0.0.1:0") && take("127.0.0.1:0"));
    }

    #[test]
    fn the_remedy_fits_the_slip() {
        assert!(address_help(":80").contains("0.0.0.0:80"));
        assert!(address_help("localhost:80").contains("\"127.0.0.1:80\""));
        assert!(address_help("8080").contains("\"127.0.0.1:8080\""));
        assert!(address_help("::1").contains("\"[::1]:8080\""));
        assert!(address_help("example.com:80").contains("127.0.0.1:8080"));
    }
}
