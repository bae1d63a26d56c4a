;; Never comes back from its configuration.
(module
  (memory (export "memory") 1)
  (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (i32.const 1024))
  (func (export "tidegate:filter/callbacks@0.1.0#configure") (param i32 i32) (result i32)
    (loop $again (br $again))
    unreachable)
  (func (export "tidegate:filter/callbacks@0.1.0#log") (param i64)))
