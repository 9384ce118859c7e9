"""HTTP behind API Gateway: routes, parameters, bodies, responses and the dashboard."""
