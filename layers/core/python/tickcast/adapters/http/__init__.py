"""HTTP behind API Gateway: routes, parameters, bodies and responses."""
