"""HTTP as API Gateway hands it on: queries in, responses out, the dashboard."""
