"""Any Python object, by cloudpickle."""
