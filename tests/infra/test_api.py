"""The API as deployed against its description: the same routes, the same keys, limits for each."""

from __future__ import annotations

from typing import Any

from cdk.config import load
from layers import openapi
from operations.rehearsal.synthesis import Synthesised
from tickcast.adapters.http.routes import ROUTES


def described() -> dict[str, dict[str, Any]]:
    """The operations of the OpenAPI document, by method and path."""
    return {
        f"{method.upper()} {path}": operation
        for path, methods in openapi.document()["paths"].items()
        for method, operation in methods.items()
    }


def deployed(synthesised: Synthesised) -> dict[str, dict[str, Any]]:
    """The properties of the methods in the template, by method and path."""
    resources = dict(synthesised.resources("AWS::ApiGateway::Resource"))

    def path(resource_id: dict[str, Any]) -> str:
        if "Fn::GetAtt" in resource_id:
            return ""  # the root
        resource = resources[resource_id["Ref"]]
        return f"{path(resource['ParentId'])}/{resource['PathPart']}"

    return {
        f"{properties['HttpMethod']} {path(properties['ResourceId']) or '/'}": properties
        for _, properties in synthesised.resources("AWS::ApiGateway::Method")
    }


def test_the_described_and_the_deployed_routes_agree(synthesised: Synthesised) -> None:
    found = {route for route in deployed(synthesised) if not route.startswith("OPTIONS")}
    assert found == set(described()) == {f"GET {route.path}" for route in ROUTES}


def test_who_needs_a_key(synthesised: Synthesised) -> None:
    methods = deployed(synthesised)
    for name, operation in described().items():
        is_open = operation.get("security") == []
        assert methods[name]["ApiKeyRequired"] is not is_open, name
        assert ("403" in operation["responses"]) is not is_open, name
    assert {path for path in described() if not methods[path]["ApiKeyRequired"]} == {
        "GET /",
        "GET /openapi.json",
        "GET /health",
    }


def test_a_browser_may_call_from_any_page(synthesised: Synthesised) -> None:
    methods = deployed(synthesised)
    for path in (route.path for route in ROUTES):
        [answer] = methods[f"OPTIONS {path}"]["Integration"]["IntegrationResponses"]
        headers = answer["ResponseParameters"]
        assert headers["method.response.header.Access-Control-Allow-Origin"] == "'*'"
        assert "x-api-key" in headers["method.response.header.Access-Control-Allow-Headers"]
        assert not methods[f"OPTIONS {path}"].get("ApiKeyRequired", False)


def test_limits(synthesised: Synthesised) -> None:
    settings = synthesised.one("AWS::ApiGateway::Stage")["MethodSettings"]
    by_path = {each["ResourcePath"].replace("~1", "/"): each for each in settings}
    open_paths = [route.path for route in ROUTES if not route.needs_key]
    for path in ("/*", *(path if path != "/" else "//" for path in open_paths)):
        [limit] = [
            each for name, each in by_path.items() if name.replace("//", "/") == path.replace("//", "/")
        ]
        assert limit["ThrottlingRateLimit"] > 0 and limit["ThrottlingBurstLimit"] > 0
        assert limit["LoggingLevel"] == "ERROR"
    assert settings[0]["DataTraceEnabled"] is False
    plan = synthesised.one("AWS::ApiGateway::UsagePlan")
    assert plan["Throttle"]["RateLimit"] > 0 and plan["Quota"]["Period"] == "DAY"
    [stage] = plan["ApiStages"]
    assert set(stage["Throttle"]) == {f"{route.path}/GET" for route in ROUTES if route.is_heavy}
    for limit in stage["Throttle"].values():
        assert limit["RateLimit"] <= plan["Throttle"]["RateLimit"]


def test_a_key_may_poll_every_symbol_once_a_second_around_the_clock(synthesised: Synthesised) -> None:
    """Or one of them ten times a second; and the stage leaves room for more than one such key."""
    symbols = len(load(synthesised.name).symbols)
    plan = synthesised.one("AWS::ApiGateway::UsagePlan")
    assert plan["Quota"]["Limit"] >= max(symbols, 10) * 86_400
    assert plan["Throttle"]["RateLimit"] >= 2 * max(symbols, 10)
    assert plan["Throttle"]["BurstLimit"] >= plan["Throttle"]["RateLimit"]
    [stage] = plan["ApiStages"]
    assert not {path for path in stage["Throttle"] if path.startswith("/predictions")} - {
        "/predictions/{symbol}/history/GET"
    }
    settings = synthesised.one("AWS::ApiGateway::Stage")["MethodSettings"]
    assert settings[0]["ResourcePath"] == "/*"
    assert settings[0]["ThrottlingRateLimit"] >= plan["Throttle"]["RateLimit"]


def test_the_gateway_caches_nothing(synthesised: Synthesised) -> None:
    """Each reading of a prediction is of its own moment."""
    stage = synthesised.one("AWS::ApiGateway::Stage")
    assert not stage.get("CacheClusterEnabled", False)
    assert not any(each.get("CachingEnabled", False) for each in stage["MethodSettings"])


def test_the_api_is_regional_and_logged(synthesised: Synthesised) -> None:
    assert synthesised.one("AWS::ApiGateway::RestApi")["EndpointConfiguration"]["Types"] == ["REGIONAL"]
    stage = synthesised.one("AWS::ApiGateway::Stage")
    assert stage["AccessLogSetting"]["DestinationArn"]


def test_by_configuration_callers_sign_instead_of_sending_a_key(changed: Synthesised) -> None:
    methods = deployed(changed)
    for route in ROUTES:
        method = methods[f"GET {route.path}"]
        assert method["AuthorizationType"] == ("AWS_IAM" if route.needs_key else "NONE"), route.path
        assert method["ApiKeyRequired"] is False
        # A browser asks by OPTIONS before it sends a signature, and asks without one.
        assert methods[f"OPTIONS {route.path}"]["AuthorizationType"] == "NONE"
        [answer] = methods[f"OPTIONS {route.path}"]["Integration"]["IntegrationResponses"]
        allowed = answer["ResponseParameters"]["method.response.header.Access-Control-Allow-Headers"]
        assert {"Authorization", "X-Amz-Date", "X-Amz-Security-Token"} <= set(allowed.strip("'").split(","))
    for kind in ("ApiKey", "UsagePlan", "UsagePlanKey"):
        assert not list(changed.resources(f"AWS::ApiGateway::{kind}"))
    outputs = changed.templates["app"]["Outputs"]
    assert "ApiKeyId" not in outputs
    [(policy_id, policy)] = changed.resources("AWS::IAM::ManagedPolicy")
    assert outputs["ApiCallPolicy"]["Value"] == {"Ref": policy_id}
    [statement] = policy["PolicyDocument"]["Statement"]
    assert statement["Action"] == "execute-api:Invoke"
    assert statement["Resource"]["Fn::Join"][1][-1] == "/v1/GET/*"


def test_heavy_routes_are_limited_without_keys_too(changed: Synthesised) -> None:
    settings = changed.one("AWS::ApiGateway::Stage")["MethodSettings"]
    limited = {each["ResourcePath"].replace("~1", "/").lstrip("/"): each for each in settings}
    for route in ROUTES:
        if route.is_heavy:
            assert limited[route.path.lstrip("/")]["ThrottlingRateLimit"] < settings[0]["ThrottlingRateLimit"]


def test_a_request_that_is_not_signed_is_told_so(changed: Synthesised, synthesised: Synthesised) -> None:
    """The gateway calls it what it calls an unknown path."""
    for each, status, words in ((changed, "403", "Sign the request"), (synthesised, "404", "No such path")):
        [response] = [
            response
            for _, response in each.resources("AWS::ApiGateway::GatewayResponse")
            if response["ResponseType"] == "MISSING_AUTHENTICATION_TOKEN"
        ]
        assert response["StatusCode"] == status
        assert words in response["ResponseTemplates"]["application/json"]


def test_errors_are_not_cached(synthesised: Synthesised) -> None:
    for _, properties in synthesised.resources("AWS::ApiGateway::GatewayResponse"):
        assert properties["ResponseParameters"]["gatewayresponse.header.Cache-Control"] == "'no-store'"
