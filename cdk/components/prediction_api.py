"""The REST API in front of `serve_predictions`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from aws_cdk import Acknowledgment, Duration, Size, Validations
from aws_cdk import aws_apigateway as apigateway
from aws_cdk import aws_iam as iam
from aws_cdk import aws_lambda as lambda_
from constructs import Construct

from cdk.components.log_group import LogGroup
from cdk.config import Environment
from tickcast.adapters.http.routes import ROUTES
from tickcast.adapters.settings import Authorisation

STAGE = "v1"
PROBLEM_JSON = "application/problem+json"

# An unknown path, which the gateway calls a missing authentication token and answers with 403, is made a 404.
# Where requests are signed, a missing signature is the same to it, and both stay a 403.
NO_SUCH_PATH = (
    apigateway.ResponseType.MISSING_AUTHENTICATION_TOKEN,
    404,
    "Not Found",
    "No such path or method.",
)
NOT_SIGNED = (
    apigateway.ResponseType.MISSING_AUTHENTICATION_TOKEN,
    403,
    "Forbidden",
    "Sign the request (AWS Signature Version 4, service execute-api); or there is no such path or method.",
)
# What the gateway itself refuses, before a function is invoked: (response, status, title, detail).
# Without a detail the gateway's own message is passed on.
PROBLEMS = (
    (apigateway.ResponseType.INVALID_API_KEY, 403, "Forbidden", "A valid API key is needed: x-api-key."),
    (apigateway.ResponseType.BAD_REQUEST_PARAMETERS, 400, "Bad Request", None),
    (apigateway.ResponseType.THROTTLED, 429, "Too Many Requests", "Too many requests in one second."),
    (
        apigateway.ResponseType.QUOTA_EXCEEDED,
        429,
        "Too Many Requests",
        "This key's requests for today are used up.",
    ),
    (apigateway.ResponseType.INTEGRATION_TIMEOUT, 504, "Gateway Timeout", "No answer in time."),
    (apigateway.ResponseType.INTEGRATION_FAILURE, 502, "Bad Gateway", "The function behind the API failed."),
    (apigateway.ResponseType.DEFAULT_4_XX, None, "Request refused", None),
    (apigateway.ResponseType.DEFAULT_5_XX, None, "Internal error", None),
)

# The headers by which a caller shows who it is.
SENT_BY: Mapping[Authorisation, Sequence[str]] = {
    "api_key": ["x-api-key"],
    "iam": ["Authorization", "X-Amz-Date", "X-Amz-Security-Token", "X-Amz-Content-Sha256"],
}

ACCESS_LOG = json.dumps(
    {
        "time": "$context.requestTimeEpoch",
        "request_id": "$context.requestId",
        "method": "$context.httpMethod",
        "path": "$context.path",
        "status": "$context.status",
        "error": "$context.error.responseType",
        "api_key_id": "$context.identity.apiKeyId",
        "user_arn": "$context.identity.userArn",
        "latency_ms": "$context.responseLatency",
        "integration_ms": "$context.integrationLatency",
        "trace_id": "$context.xrayTraceId",
    }
)


class PredictionApi(Construct):
    """The routes, most of them for callers with an API key, or by configuration for AWS identities; a browser
    may call any of them from any page.

    Every error is `application/problem+json`, the gateway's own included. The usage plan meters and limits
    each key; the stage's throttle holds for all callers of a route together, those without a key included.
    `key` is the first key, `callers` the policy of who may call: there is one or the other.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        environment: Environment,
        function: lambda_.Function,
    ) -> None:
        super().__init__(scope, construct_id)
        self._by_iam = environment.api.authorisation == "iam"
        on_aws = environment.aws is not None
        self.api = apigateway.RestApi(
            self,
            "Api",
            rest_api_name=f"tickcast-{environment.name}",
            description="Predictions of the next seconds, by symbol",
            endpoint_types=[apigateway.EndpointType.REGIONAL],
            # An account-wide setting that logging stages need; it stays when this stack goes.
            cloud_watch_role=on_aws,
            min_compression_size=Size.kibibytes(2),
            deploy_options=self._stage(environment),
            default_cors_preflight_options=apigateway.CorsOptions(
                # A key or a signature is a header of the caller's own, not a cookie a browser adds: any page
                # may ask.
                allow_origins=apigateway.Cors.ALL_ORIGINS,
                allow_methods=["GET", "OPTIONS"],
                allow_headers=[*SENT_BY[environment.api.authorisation], "Content-Type", "If-None-Match"],
                max_age=Duration.hours(1),
            ),
        )
        # The gateway would make this group by itself, and keep it indefinitely.
        execution_log = LogGroup(
            self,
            "ExecutionLog",
            log_group_name=f"API-Gateway-Execution-Logs_{self.api.rest_api_id}/{STAGE}",
            retention=environment.log_retention,
        )
        self.api.deployment_stage.node.add_dependency(execution_log)
        # The construct's own output of the URL; the stack gives it a fixed name.
        self.api.node.try_remove_child("Endpoint")
        methods = self._route(apigateway.LambdaIntegration(function, allow_test_invoke=False))
        self._problems()

        self.key = None if self._by_iam else self._key(environment, methods)
        self.callers = self._callers() if self._by_iam else None
        self._acknowledge(on_aws)

    def _stage(self, environment: Environment) -> apigateway.StageOptions:
        limits, known_limits = environment.api, environment.api.for_symbols(len(environment.symbols))
        # A method with settings of its own inherits none of the stage's.
        limited = {
            f"{route.path}/GET": self._method_options(limits.open_requests_per_s, limits.open_burst)
            for route in ROUTES
            if not route.needs_key
        }
        if self._by_iam:  # no usage plan, so what limits heavy routes is the stage, for all callers together
            limited |= {
                f"{route.path}/GET": self._method_options(
                    limits.key_heavy_requests_per_s, limits.key_heavy_burst
                )
                for route in ROUTES
                if route.is_heavy
            }
        return apigateway.StageOptions(
            stage_name=STAGE,
            tracing_enabled=environment.tracing,
            # Metrics by method are custom ones, each with a price; those of the whole API are free.
            metrics_enabled=False,
            logging_level=apigateway.MethodLoggingLevel.ERROR,
            access_log_destination=apigateway.LogGroupLogDestination(
                LogGroup(self, "AccessLog", retention=environment.log_retention)
            ),
            access_log_format=apigateway.AccessLogFormat.custom(ACCESS_LOG),
            throttling_rate_limit=known_limits.requests_per_s,
            throttling_burst_limit=known_limits.burst,
            method_options=limited,
        )

    @staticmethod
    def _method_options(requests_per_s: int, burst: int) -> apigateway.MethodDeploymentOptions:
        return apigateway.MethodDeploymentOptions(
            metrics_enabled=False,
            logging_level=apigateway.MethodLoggingLevel.ERROR,
            throttling_rate_limit=requests_per_s,
            throttling_burst_limit=burst,
        )

    def _route(self, integration: apigateway.LambdaIntegration) -> dict[str, apigateway.Method]:
        """The methods, by path."""
        types = apigateway.AuthorizationType
        validator = self.api.add_request_validator(
            "Parameters", validate_request_parameters=True, validate_request_body=True
        )
        return {
            route.path: self.api.root.resource_for_path(route.path).add_method(
                "GET",
                integration,
                api_key_required=route.needs_key and not self._by_iam,
                authorization_type=types.IAM if route.needs_key and self._by_iam else types.NONE,
                request_validator=validator,
                request_parameters={f"method.request.path.{name}": True for name in route.path_parameters},
            )
            for route in ROUTES
        }

    def _key(self, environment: Environment, methods: Mapping[str, apigateway.Method]) -> apigateway.IApiKey:
        """The first key, with the usage plan that limits it."""
        limits, known_limits = environment.api, environment.api.for_symbols(len(environment.symbols))
        plan = self.api.add_usage_plan(
            "Plan",
            name=f"tickcast-{environment.name}",
            throttle=apigateway.ThrottleSettings(
                rate_limit=known_limits.key_requests_per_s, burst_limit=known_limits.key_burst
            ),
            quota=apigateway.QuotaSettings(
                limit=known_limits.key_requests_per_day, period=apigateway.Period.DAY
            ),
            api_stages=[
                apigateway.UsagePlanPerApiStage(
                    api=self.api,
                    stage=self.api.deployment_stage,
                    throttle=[
                        apigateway.ThrottlingPerMethod(
                            method=methods[route.path],
                            throttle=apigateway.ThrottleSettings(
                                rate_limit=limits.key_heavy_requests_per_s, burst_limit=limits.key_heavy_burst
                            ),
                        )
                        for route in ROUTES
                        if route.is_heavy
                    ],
                )
            ],
        )
        key = self.api.add_api_key("Key", description=f"First key of tickcast-{environment.name}")
        plan.add_api_key(key)
        return key

    def _callers(self) -> iam.ManagedPolicy:
        """What lets an identity of this account call the routes that are not open: a policy to attach."""
        policy = iam.ManagedPolicy(
            self,
            "Callers",
            description="May read predictions of tickcast from its API",
            statements=[
                iam.PolicyStatement(
                    actions=["execute-api:Invoke"],
                    resources=[self.api.arn_for_execute_api("GET", "/*", STAGE)],
                )
            ],
        )
        return policy

    def _problems(self) -> None:
        first = NOT_SIGNED if self._by_iam else NO_SUCH_PATH
        for response_type, status, title, detail in (first, *PROBLEMS):
            message = json.dumps(detail) if detail else "$context.error.messageString"
            # `status` of a default response is not known here, and may be left out of a problem.
            known = f'"status":{status},' if status else ""
            self.api.add_gateway_response(
                response_type.response_type.title().replace("_", ""),
                type=response_type,
                status_code=str(status) if status else None,
                templates={
                    "application/json": f'{{"type":"about:blank","title":"{title}",{known}'
                    f'"detail":{message},"request_id":"$context.requestId"}}'
                },
                response_headers={
                    "Content-Type": f"'{PROBLEM_JSON}'",
                    "Cache-Control": "'no-store'",
                    "Access-Control-Allow-Origin": "'*'",
                },
            )

    def _acknowledge(self, on_aws: bool) -> None:
        Validations.of(self.api).acknowledge(
            Acknowledgment(
                id="AwsSolutions-APIG4",
                reason="Predictions ask for an API key with a usage plan, or for a signature; health, the "
                "dashboard's page and the API's description hold nothing secret and are public on purpose.",
            ),
            Acknowledgment(
                id="AwsSolutions-COG4",
                reason="The callers are programs with a key, not people who sign in: there is no user pool.",
            ),
            Acknowledgment(
                id="AwsSolutions-APIG3",
                reason="A web ACL has a monthly price; the throttles bound what abuse can cost.",
            ),
        )
        if on_aws:
            Validations.of(self.api).acknowledge(
                Acknowledgment(
                    id="AwsSolutions-IAM4[Policy::arn:<AWS::Partition>:iam::aws:policy/service-role/"
                    "AmazonAPIGatewayPushToCloudWatchLogs]",
                    reason="API Gateway's account-wide role for its logs is meant to have just this policy.",
                )
            )
