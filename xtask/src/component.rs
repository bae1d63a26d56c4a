//! Wraps a native core module as a component of the same world, so that tests can run a filter by both
//! carriers. It must not change what the module does.

use std::path::Path;

use anyhow::{Context as _, Result};
use wasmparser::{Parser, Payload};
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

/// The world of the native contract.
const WORLD: &str = "filter";

/// By this export the canonical form of the contract is known. A module that exports plain identifiers
/// only can't be wrapped: the component tools know them by no other name.
const CONFIGURE: (&str, &str) = ("tidegate:filter/callbacks", "#configure");

/// What a module says about itself.
#[derive(Debug, Default, PartialEq, Eq)]
struct Traits {
    /// It exports the contract's callbacks under their canonical names.
    canonical: bool,
    /// It carries its world, as generated bindings do.
    typed: bool,
}

/// The component of a core module; none if the module is no native filter in canonical form.
pub(crate) fn wrap(core: &[u8], wit: &Path) -> Result<Option<Vec<u8>>> {
    let traits = traits(core)?;
    if !traits.canonical {
        return Ok(None);
    }
    let mut module = core.to_vec();
    if !traits.typed {
        embed_world(&mut module, wit)?;
    }
    let component = ComponentEncoder::default()
        .validate(true)
        .module(&module)?
        .encode()?;
    Ok(Some(component))
}

fn traits(core: &[u8]) -> Result<Traits> {
    let mut found = Traits::default();
    for payload in Parser::new(0).parse_all(core) {
        match payload? {
            Payload::ExportSection(exports) => {
                for export in exports {
                    let name = export?.name;
                    found.canonical |= name.starts_with(CONFIGURE.0) && name.ends_with(CONFIGURE.1);
                }
            }
            Payload::CustomSection(section) => {
                found.typed |= section.name().starts_with("component-type");
            }
            _ => {}
        }
    }
    Ok(found)
}

fn embed_world(module: &mut Vec<u8>, wit: &Path) -> Result<()> {
    let mut resolve = Resolve::default();
    let (package, _) = resolve
        .push_path(wit)
        .with_context(|| format!("can't read the contract in {}", wit.display()))?;
    let world = resolve.select_world(&[package], Some(WORLD))?;
    embed_component_metadata(module, &resolve, world, StringEncoding::UTF8)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A module with nothing but exports of that name and custom sections of these.
    fn module(export: Option<&str>, sections: &[&str]) -> Vec<u8> {
        let mut bytes = b"\0asm\x01\0\0\0".to_vec();
        let mut section = |id: u8, body: Vec<u8>| {
            bytes.push(id);
            bytes.push(u8::try_from(body.len()).unwrap());
            bytes.extend(body);
        };
        let text = |text: &str| {
            let mut bytes = vec![u8::try_from(text.len()).unwrap()];
            bytes.extend(text.as_bytes());
            bytes
        };
        if let Some(name) = export {
            section(5, vec![1, 0, 1]);
            section(7, [vec![1], text(name), vec![2, 0]].concat());
        }
        for name in sections {
            section(0, text(name));
        }
        bytes
    }

    #[test]
    fn the_canonical_form_is_known_by_configure() {
        let name = "tidegate:filter/callbacks@0.1.0#configure";
        let found = traits(&module(Some(name), &["component-type:filter"])).unwrap();
        assert_eq!(
            found,
            Traits {
                canonical: true,
                typed: true
            }
        );
    }

    #[test]
    fn another_module_is_left_alone() {
        let plain = module(Some("proxy_on_request_headers"), &["name"]);
        assert_eq!(traits(&plain).unwrap(), Traits::default());
        assert_eq!(wrap(&plain, Path::new("/nowhere")).unwrap(), None);
    }

    #[test]
    fn garbage_is_an_error() {
        assert!(wrap(b"not wasm", Path::new("/nowhere")).is_err());
    }
}
