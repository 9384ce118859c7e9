"""What is done with an AWS account: rehearse, deploy, examine and price the application."""
