;; Refuses every configuration, and says why.
(module
  (memory (export "memory") 1)
  (data (i32.const 16) "\01\00\00\00\40\00\00\00\17\00\00\00")
  (data (i32.const 64) "keys: one must be given")
  (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (i32.const 1024))
  (func (export "tidegate:filter/callbacks@0.1.0#configure") (param i32 i32) (result i32) (i32.const 16))
  (func (export "tidegate:filter/callbacks@0.1.0#log") (param i64)))
