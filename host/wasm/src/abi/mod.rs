//! One folder for each filter ABI, and the one place that chooses among them. An ABI translates between a guest's
//! memory and calls on one side and `tidegate-core` on the other, and decides nothing itself.

pub(crate) mod native;
