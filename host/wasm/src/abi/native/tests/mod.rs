//! Tests of the native contract through the real runtime. Guests are written in WebAssembly text; each runs as a
//! core module and as a component made of the same module, and must behave the same.

mod containment;
mod costs;
mod exchange;
mod guest;
mod http_calls;
mod interests;
mod isolation;
mod limits;
mod lowering;
mod refused_files;
mod renewal;
mod services;
mod world;
