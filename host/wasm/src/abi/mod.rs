//! One folder for each filter ABI, and the one place that chooses among them. An ABI translates between a guest's
//! memory and calls on one side and `tidegate-core` on the other, and decides nothing itself.
//!
//! A new ABI is a folder here, a [`Kind`], a line in `detect`, and a variant of each of the two types below.

mod native;

use std::sync::Arc;

use tidegate_core::filter::FilterModule;

use crate::detect::Shape;
use crate::engine::{Binary, Kind};
use crate::error::LoadError;
use crate::options::LoadOptions;

/// A file whose imports and exports are those of its ABI.
#[derive(Clone, Debug)]
pub(crate) enum Checked {
    Native(native::Checked),
}

/// Compiled code with its imports resolved.
pub(crate) enum Linked {
    Native(native::Checked, Arc<native::Linked>),
}

/// Checks a file against the ABI that it speaks.
pub(crate) fn check(shape: &Shape) -> Result<Checked, LoadError> {
    match shape.kind {
        Kind::NativeCore | Kind::NativeComponent => native::check(shape).map(Checked::Native),
    }
}

impl Checked {
    /// The version of the ABI that the file was made for.
    pub(crate) fn contract(&self) -> String {
        match self {
            Checked::Native(checked) => checked.contract.to_string(),
        }
    }

    /// The keys under `allow` without which it is not loaded.
    pub(crate) fn capabilities(&self) -> Vec<&'static str> {
        match self {
            Checked::Native(checked) => checked
                .capabilities
                .iter()
                .filter(|capability| !checked.optional.contains(capability))
                .map(|capability| capability.key())
                .collect(),
        }
    }

    /// Resolves the imports of the compiled file.
    pub(crate) fn link(self, shape: &Shape, binary: &Binary) -> Result<Linked, LoadError> {
        match self {
            Checked::Native(checked) => {
                let linked = native::link(shape, &checked, binary)?;
                Ok(Linked::Native(checked, Arc::new(linked)))
            }
        }
    }
}

impl Linked {
    /// Makes a filter of it.
    pub(crate) fn load(
        &self,
        shape: &Shape,
        options: LoadOptions,
    ) -> Result<Arc<dyn FilterModule>, LoadError> {
        match self {
            Linked::Native(checked, linked) => native::load(linked, checked, shape, options),
        }
    }
}
