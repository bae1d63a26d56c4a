  ;; What stands around every misdeed: a filter that takes part in every phase and does it in one of them. The first
  ;; byte of its configuration is the phase's number (0 configure, then as the contract has them up to 7, log), the
  ;; second one a letter that a misdeed may read as $case.
  (memory (export "memory") 2)
  (global $phase (mut i32) (i32.const -1))
  (global $case (mut i32) (i32.const 0))
  (global $free (mut i32) (i32.const 65536))

  (func $at (param $now i32)
    (if (i32.eq (local.get $now) (global.get $phase)) (then (call $misdeed))))

  (func (export "cabi_realloc") (param $old i32) (param $old-size i32) (param $align i32) (param $size i32)
    (result i32)
    (call $allocate (local.get $align) (local.get $size)))

  (func (export "tidegate:filter/callbacks@0.1.0#configure") (param $at i32) (param $length i32) (result i32)
    (global.set $phase (i32.sub (i32.load8_u (local.get $at)) (i32.const 48)))
    (global.set $case (i32.load8_u offset=1 (local.get $at)))
    (call $at (i32.const 0))
    ;; Accepted, for all seven phases, with bodies in a stream.
    (i32.store8 (i32.const 132) (i32.const 127))
    (i32.const 128))
  (func (export "tidegate:filter/callbacks@0.1.0#request-head") (param i64 i32) (result i32)
    (call $at (i32.const 1)) (global.get $flow))
  (func (export "tidegate:filter/callbacks@0.1.0#request-body") (param i64 i32 i32) (result i32)
    (call $at (i32.const 2)) (global.get $flow))
  (func (export "tidegate:filter/callbacks@0.1.0#request-trailers") (param i64) (result i32)
    (call $at (i32.const 3)) (global.get $flow))
  (func (export "tidegate:filter/callbacks@0.1.0#response-head") (param i64 i32) (result i32)
    (call $at (i32.const 4)) (global.get $flow))
  (func (export "tidegate:filter/callbacks@0.1.0#response-body") (param i64 i32 i32) (result i32)
    (call $at (i32.const 5)) (global.get $flow))
  (func (export "tidegate:filter/callbacks@0.1.0#response-trailers") (param i64) (result i32)
    (call $at (i32.const 6)) (global.get $flow))
  (func (export "tidegate:filter/callbacks@0.1.0#log") (param i64)
    (call $at (i32.const 7)))
  ;; What head and body phases return: proceed, unless a misdeed changes it.
  (global $flow (mut i32) (i32.const 0))
