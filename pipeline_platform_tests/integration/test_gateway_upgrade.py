"""Clients that ask for HTTP/2 over plain text in their first request: it is ignored, and the events arrive."""

import json
import shutil
import subprocess
import warnings
from pathlib import Path

import pytest

from pipeline_platform_tests.support.gateway import Gateway, event

_MAIN = """
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.util.Base64;

public class Main {
    public static void main(String[] arguments) throws Exception {
        HttpClient client = HttpClient.newHttpClient();
        String basic = Base64.getEncoder().encodeToString((arguments[1] + ":").getBytes());
        for (int number = 0; number < 3; number++) {
            String text = "x".repeat(number * 60_000);
            String event = "{\\"type\\":\\"track\\",\\"event\\":\\"x\\",\\"userId\\":\\"u\\",\\"messageId\\":\\"m"
                + number + "\\",\\"properties\\":{\\"text\\":\\"" + text + "\\"}}";
            HttpRequest request = HttpRequest.newBuilder(URI.create(arguments[0] + "/v1/batch"))
                .header("Authorization", "Basic " + basic)
                .POST(HttpRequest.BodyPublishers.ofString("{\\"batch\\":[" + event + "]}"))
                .build();
            System.out.println(client.send(request, HttpResponse.BodyHandlers.ofString()).statusCode());
        }
    }
}
"""


def needed(program: str, package: str) -> str:
    path = shutil.which(program)
    if path is None:
        said = f"no {program}: its upgrade to HTTP/2 is NOT tested; apt-get install {package}"
        warnings.warn(said, stacklevel=1)
        pytest.skip(said)
    return path


def test_the_client_of_the_jdk(gateway: Gateway, tmp_path: Path) -> None:
    command = [needed("javac", "default-jdk-headless"), "-d", str(tmp_path), str(tmp_path / "Main.java")]
    (tmp_path / "Main.java").write_text(_MAIN)
    subprocess.run(command, check=True, timeout=120)
    run = [needed("java", "default-jdk-headless"), "-cp", str(tmp_path), "Main", gateway.process.url, gateway.key]
    said = subprocess.run(run, check=True, timeout=120, capture_output=True, text=True)
    assert said.stdout.split() == ["200"] * 3
    assert gateway.stored == 3


def test_curl(gateway: Gateway) -> None:
    body = json.dumps({"batch": [event()]})
    url = f"{gateway.process.url}/v1/batch"
    one = ["-sS", "-w", "%{http_code}\n", "-o", "/dev/null", "-u", f"{gateway.key}:", "-d", body, url]
    # Twice on one connection.
    command = [needed("curl", "curl"), "--http2", *one, "--next", "--http2", *one]
    said = subprocess.run(command, check=True, timeout=60, capture_output=True, text=True)
    assert said.stdout.split() == ["200", "200"]
    assert gateway.stored == 2
