"""What runs inside a serverless worker: reading requests, calling functions, calling other endpoints.

The standard library only at import; cloudpickle, the contract and the plugins are imported when they are needed. The public door is
`flame_host.handler`.
"""
