;; A valid module, but no filter.
(module (func (export "run")))
