//! The SDK's two heads as one: both tell the same facts of an exchange, through types of their own. Knows no source.

use tidegate_sdk::prelude::*;
use tidegate_sdk::{CertificateFacts, TlsFacts};

/// What both heads tell.
pub(crate) trait View {
    fn method(&self) -> String;
    fn scheme(&self) -> String;
    fn authority(&self) -> String;
    fn path(&self) -> String;
    fn query(&self) -> Option<String>;
    fn client_address(&self) -> String;
    fn client_port(&self) -> u16;
    fn protocol(&self) -> String;
    fn tls(&self) -> Option<TlsFacts>;
    fn route(&self) -> String;
    fn path_parameter(&self, name: &str) -> Option<String>;
    fn request_id(&self) -> String;
    fn property(&self, name: &str) -> Option<Vec<u8>>;
    fn set_property(&self, name: &str, value: &[u8]) -> Result<(), Refusal>;
    fn request_field(&self, name: &str) -> Option<Vec<u8>>;
    fn client_certificate(&self) -> Option<CertificateFacts>;
    fn elapsed(&self) -> u64;
}

macro_rules! views {
    ($($view:ty),*) => {
        $(impl View for $view {
            fn method(&self) -> String {
                self.method()
            }
            fn scheme(&self) -> String {
                self.scheme()
            }
            fn authority(&self) -> String {
                self.authority()
            }
            fn path(&self) -> String {
                self.path()
            }
            fn query(&self) -> Option<String> {
                self.query()
            }
            fn client_address(&self) -> String {
                self.client_address()
            }
            fn client_port(&self) -> u16 {
                self.client_port()
            }
            fn protocol(&self) -> String {
                self.protocol()
            }
            fn tls(&self) -> Option<TlsFacts> {
                self.tls()
            }
            fn route(&self) -> String {
                self.route()
            }
            fn path_parameter(&self, name: &str) -> Option<String> {
                self.path_parameter(name)
            }
            fn request_id(&self) -> String {
                self.request_id()
            }
            fn property(&self, name: &str) -> Option<Vec<u8>> {
                self.property(name)
            }
            fn set_property(&self, name: &str, value: &[u8]) -> Result<(), Refusal> {
                self.set_property(name, value)
            }
            fn request_field(&self, name: &str) -> Option<Vec<u8>> {
                self.request_field(name)
            }
            fn client_certificate(&self) -> Option<CertificateFacts> {
                self.client_certificate()
            }
            fn elapsed(&self) -> u64 {
                self.elapsed()
            }
        })*
    };
}

views!(RequestHead, ResponseHead);
