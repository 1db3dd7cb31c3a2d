#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""`lockstep serve`, asked by the clients that people have: OpenAI's, AUTOMATIC1111's, SageMaker's, Hugging Face's; what it
says of itself, read by Prometheus' parser and an OpenAPI validator.

    python3 -m venv ~/.cache/lockstep/clients && ~/.cache/lockstep/clients/bin/pip install -r tests/launch/clients.txt
    LOCKSTEP=build/release/lockstep tests/launch/clients_test.py [OpenAi | Automatic1111 | SageMaker | HuggingFace | Formats]

Runs in that environment where it is there, or in the one that LOCKSTEP_CLIENTS names. A client that is not installed is skipped
by its name.
"""

import base64
import importlib.util
import io
import os
import pathlib
import sys
import threading
import time
import unittest
import urllib.request

ENVIRONMENT = pathlib.Path(os.environ.get("LOCKSTEP_CLIENTS", pathlib.Path.home() / ".cache/lockstep/clients")).absolute()
if __name__ == "__main__" and (ENVIRONMENT / "bin/python").exists() and pathlib.Path(sys.prefix) != ENVIRONMENT:
    os.execv(ENVIRONMENT / "bin/python", [ENVIRONMENT / "bin/python", *sys.argv])

sys.dont_write_bytecode = True
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

from served import PATIENCE, Served, png  # noqa: E402

# No client is to ask anybody else.
os.environ |= {"AWS_DEFAULT_REGION": "us-east-1", "AWS_ACCESS_KEY_ID": "none", "AWS_SECRET_ACCESS_KEY": "none",
               "AWS_EC2_METADATA_DISABLED": "true", "HF_HUB_DISABLE_TELEMETRY": "1", "SAGEMAKER_SUPPRESS_V2_WARNING": "1"}  # fmt: skip


def needs(*modules):
    lacking = [m for m in modules if not importlib.util.find_spec(m)]
    return unittest.skipIf(lacking, f"{', '.join(lacking)} is not installed (tests/launch/clients.txt)")


def picture(coded):
    """As clients open it: base64 of a picture."""
    from PIL import Image

    return Image.open(io.BytesIO(base64.b64decode(coded)))


def soon(condition):
    for _ in range(PATIENCE * 100):
        if found := condition():
            return found
        time.sleep(0.01)
    raise AssertionError("it did not come true")


@needs("openai", "PIL")
class OpenAi(Served):
    def client(self, url=None, key="none"):
        import openai

        return openai.OpenAI(base_url=(url or self.url) + "v1", api_key=key, max_retries=0, timeout=PATIENCE)

    def test_it_draws_what_invocations_draws(self):
        asked = {"seed": 5, "num_inference_steps": 4, "negative_prompt": "a 5", "guidance_scale": 2}
        answer = self.client().images.generate(
            prompt="a 3", model="painter", n=2, size="8x8", response_format="b64_json", quality="standard", background="auto",
            moderation="low", user="somebody", output_format="png", extra_body=asked,
        )
        expected = self.ask(asked | {"prompt": "a 3", "num_images_per_prompt": 2})["generated_images"]
        self.assertEqual([image.b64_json for image in answer.data], expected)
        self.assertEqual(picture(answer.data[0].b64_json).size, (8, 8))
        self.assertEqual((answer.output_format, answer.size), ("png", "8x8"))
        self.assertLess(abs(answer.created - time.time()), PATIENCE)

    def test_a_stream_has_pictures_on_their_way(self):
        asked = {"seed": 5, "num_inference_steps": 9}
        events = list(self.client().images.generate(prompt="a 3", stream=True, partial_images=2, extra_body=asked))
        self.assertEqual([e.type for e in events], ["image_generation.partial_image"] * 2 + ["image_generation.completed"])
        self.assertEqual([e.partial_image_index for e in events[:2]], [0, 1])
        self.assertNotEqual(events[0].b64_json, events[2].b64_json)
        self.assertEqual([events[2].b64_json], self.ask(asked | {"prompt": "a 3"})["generated_images"])
        for event in events:
            self.assertEqual(picture(event.b64_json).size, (8, 8))
            self.assertEqual((event.size, event.output_format, event.quality, event.background), ("8x8", "png", "auto", "opaque"))

    def test_what_is_refused_is_the_clients_exception(self):
        import openai

        for field, words in {
            "size": {"size": "512x512"},
            "model": {"model": "dall-e-3"},
            "n": {"n": 99},
            "style": {"style": "vivid"},
            "response_format": {"response_format": "url"},
        }.items():
            with self.assertRaises(openai.BadRequestError) as caught:
                self.client().images.generate(prompt="a 3", **words)
            self.assertEqual((caught.exception.param, caught.exception.type), (field, "invalid_request_error"))
            self.assertIn(field, caught.exception.message)
        with self.assertRaises(openai.NotFoundError):
            self.client().images.edit(image=png(1), prompt="a 3")

    def test_the_key_is_the_servers_token(self):
        import openai

        url = self.serve("painter", LOCKSTEP_SERVE_TOKEN="secret")
        self.assertEqual(len(self.client(url, "secret").images.generate(prompt="a 3").data), 1)
        with self.assertRaises(openai.AuthenticationError):
            self.client(url).images.generate(prompt="a 3")

    def test_it_asks_again_where_the_server_is_busy(self):
        """The client reads Retry-After: a refusal for a full queue is no failure yet."""
        url = self.serve("painter", "--queue", "1", "--batch", "1")

        def metrics():
            return urllib.request.urlopen(url + "metrics", timeout=PATIENCE).read().decode()

        def draw(steps):
            client = self.client(url).with_options(max_retries=60)
            drawn.append(client.images.generate(prompt="a 3", extra_body={"num_inference_steps": steps}).data)

        drawn = []
        others = [threading.Thread(target=draw, args=[400]) for _ in range(2)]
        for other in others:
            other.start()
        soon(lambda: 'lockstep_queue_length{model="painter"} 1' in metrics())  # one is drawn, one waits
        draw(2)
        for other in others:
            other.join()
        self.assertEqual([len(pictures) for pictures in drawn], [1, 1, 1])
        self.assertIn('status="503"', metrics())


@needs("webuiapi", "PIL")
class Automatic1111(Served):
    def setUp(self):
        import webuiapi

        port = int(self.url.rstrip("/").rsplit(":", 1)[1])
        self.client = webuiapi.WebUIApi(host="127.0.0.1", port=port)

    def test_txt2img_draws_what_invocations_draws(self):
        asked = {"prompt": "a 3", "negative_prompt": "a 5", "seed": 5, "width": 8, "height": 8}
        for name, ours, eta in (("Euler", "euler", None), ("Euler a", "euler_ancestral", None), ("DDIM", "ddim", 1), ("DPM++ 2M", "dpm_solver", None)):
            result = self.client.txt2img(**asked, steps=4, cfg_scale=2, batch_size=2, sampler_name=name)
            own = asked | {"num_inference_steps": 4, "guidance_scale": 2, "num_images_per_prompt": 2, "sampler": ours}
            expected = self.ask(own | ({"eta": eta} if eta else {}))["generated_images"]
            self.assertEqual(result.json["images"], expected, name)
            self.assertEqual([image.size for image in result.images], [(8, 8), (8, 8)])
            self.assertEqual((result.info["seed"], result.info["prompt"], result.parameters["sampler_name"]), (5, "a 3", name))
        # This client's eta is 1 where nothing is said; DDIM without noise is another picture.
        self.assertNotEqual(self.client.txt2img(**asked, steps=4, sampler_name="DDIM", eta=0).json["images"],
                            self.client.txt2img(**asked, steps=4, sampler_name="DDIM").json["images"])  # fmt: skip

    def test_what_is_not_there_is_said(self):
        size = {"width": 8, "height": 8}
        for field, words in {
            "height": {},  # 512 by 512 is what this client asks for where nothing is said
            "enable_hr": size | {"enable_hr": True},
            "styles": size | {"styles": ["a"]},
            "sampler_name": size | {"sampler_name": "Heun"},
            "scheduler": size | {"scheduler": "Karras"},
            "eta": size | {"sampler_name": "Euler a", "eta": 0.5},
            "s_churn": size | {"s_churn": 3},
            "save_images": size | {"save_images": True},
        }.items():
            with self.assertRaises(RuntimeError) as caught:
                self.client.txt2img(prompt="a 3", **words)
            status, text = caught.exception.args
            self.assertEqual(status, 422, text)
            self.assertIn(f'"detail":"{field} ', text)

    def test_progress_and_interrupt(self):
        self.assertEqual(self.client.get_progress()["progress"], 0)
        results = []
        asked = {"prompt": "a 3", "width": 8, "height": 8, "steps": 1000, "seed": 5, "sampler_name": "Euler"}
        drawing = threading.Thread(target=lambda: results.append(self.client.txt2img(**asked)))
        drawing.start()
        seen = soon(lambda: (p := self.client.get_progress())["current_image"] and p)
        self.assertTrue(0 < seen["progress"] < 1, seen)
        self.assertEqual((seen["state"]["sampling_steps"], seen["state"]["job_count"]), (1000, 1))
        self.assertEqual(picture(seen["current_image"]).size, (8, 8))
        self.assertEqual(self.client.interrupt(), {})
        drawing.join()
        self.assertEqual(results[0].image.size, (8, 8))
        self.assertNotEqual(results[0].json["images"], self.client.txt2img(**asked).json["images"])
        self.client.util_wait_for_ready()

    def test_names(self):
        self.assertEqual(self.client.util_get_sampler_names(), ["DDIM", "DDPM", "DPM++ 2M", "Euler", "Euler a", "PLMS"])
        self.assertEqual(self.client.util_get_model_names(), ["painter"])
        self.assertEqual(self.client.util_get_current_model(), "painter")


@needs("sagemaker", "numpy", "PIL")
class SageMaker(Served):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.digits = cls.serve("digits")

    def predict(self, data, serializer, deserializer, url=None):
        """As an endpoint in SageMaker's local mode is asked."""
        from sagemaker.local import LocalSession
        from sagemaker.predictor import Predictor

        session = LocalSession(sagemaker_config={"SchemaVersion": "1.0", "SageMaker": {"PythonSDK": {"Modules": {"TelemetryOptOut": True}}}})
        session.config = {"local": {"serving_port": int((url or self.url).rstrip("/").rsplit(":", 1)[1])}}
        return Predictor("local", session, serializer=serializer, deserializer=deserializer).predict(data)

    def test_the_articles_request(self):
        """A list of prompts and how many of each; pictures in base64, which PIL opens."""
        from sagemaker.deserializers import BytesDeserializer, JSONDeserializer
        from sagemaker.serializers import JSONSerializer

        asked = {"prompt": ["a 3", "a 5"], "height": 8, "width": 8, "num_images_per_prompt": 2}
        answer = self.predict(asked, JSONSerializer(), JSONDeserializer())
        self.assertEqual([picture(coded).size for coded in answer["generated_images"]], [(8, 8)] * 4)
        # As Hugging Face's container is asked, and as a picture.
        asked = {"inputs": "a 3", "parameters": {"seed": 5, "num_inference_steps": 4}}
        coded = self.predict(asked, JSONSerializer(), JSONDeserializer())["generated_images"][0]
        self.assertEqual([coded], self.ask({"prompt": "a 3", "seed": 5, "num_inference_steps": 4})["generated_images"])
        raw = self.predict(asked, JSONSerializer(), BytesDeserializer(accept="image/png"))
        self.assertEqual(raw, base64.b64decode(coded))

    def test_a_classifier_reads_pictures(self):
        from sagemaker.deserializers import JSONDeserializer, JSONLinesDeserializer
        from sagemaker.serializers import DataSerializer, IdentitySerializer, JSONLinesSerializer, JSONSerializer

        coded = base64.b64encode(png(3)).decode()
        one = self.predict(png(3), IdentitySerializer("image/png"), JSONDeserializer(), self.digits)
        self.assertEqual(len(one["probabilities"]), 10)
        self.assertEqual(self.predict(str(self.folder / "digit.png"), DataSerializer("image/png"), JSONDeserializer(), self.digits), one)
        self.assertEqual(self.predict({"inputs": [coded, coded]}, JSONSerializer(), JSONDeserializer(), self.digits),
                         {"predictions": [one, one]})  # fmt: skip
        self.assertEqual(self.predict([{"inputs": coded}] * 3, JSONLinesSerializer(), JSONLinesDeserializer(), self.digits), [one] * 3)

    def test_what_is_not_read_is_said(self):
        from sagemaker.deserializers import CSVDeserializer, JSONDeserializer, NumpyDeserializer
        from sagemaker.serializers import CSVSerializer, JSONSerializer, NumpySerializer

        for serializer in (NumpySerializer(), CSVSerializer()):
            for url in (self.url, self.digits):
                error = self.predict([[1, 2], [3, 4]], serializer, JSONDeserializer(), url)["error"]
                self.assertEqual(error["code"], 415)
                self.assertIn("application/json", error["message"])
        # Of an answer in another form this client's local mode says only what it cannot read; the server says why.
        for deserializer in (NumpyDeserializer(), CSVDeserializer()):
            for url, body in ((self.url, {"prompt": "a 3"}), (self.digits, {"inputs": base64.b64encode(png(3)).decode()})):
                deserializer.deserialize = lambda stream, content_type: JSONDeserializer().deserialize(stream, "application/json")
                error = self.predict(body, JSONSerializer(), deserializer, url)["error"]
                self.assertEqual(error["code"], 406)
                self.assertIn("answers are application/json", error["message"])


@needs("huggingface_hub", "PIL")
class HuggingFace(Served):
    def test_text_to_image(self):
        from huggingface_hub import InferenceClient

        asked = {"height": 8, "width": 8, "num_inference_steps": 4, "guidance_scale": 2, "seed": 5}
        image = InferenceClient(self.url + "invocations").text_to_image("a 3", negative_prompt="a 5", **asked)
        expected = self.ask(asked | {"prompt": "a 3", "negative_prompt": "a 5"})["generated_images"][0]
        self.assertEqual(image.tobytes(), picture(expected).tobytes())

    def test_errors_and_tokens(self):
        from huggingface_hub import InferenceClient
        from huggingface_hub.errors import HfHubHTTPError

        with self.assertRaisesRegex(HfHubHTTPError, "height"):
            InferenceClient(self.url + "invocations").text_to_image("a 3", height=512, width=8)
        url = self.serve("painter", LOCKSTEP_SERVE_TOKEN="secret") + "invocations"
        self.assertEqual(InferenceClient(url, token="secret").text_to_image("a 3").size, (8, 8))
        with self.assertRaisesRegex(HfHubHTTPError, "401"):
            InferenceClient(url, token="other").text_to_image("a 3")


@needs("prometheus_client", "openapi_spec_validator")
class Formats(Served):
    def get(self, path):
        with urllib.request.urlopen(self.url + path, timeout=PATIENCE) as answer:
            return answer.read().decode()

    def test_metrics(self):
        from prometheus_client.parser import text_string_to_metric_families

        for i in range(3):
            self.ask({"model": "digits", "inputs": base64.b64encode(png(i)).decode()})
        self.ask({"prompt": "a 3", "num_images_per_prompt": 2})
        found = {family.name: family for family in text_string_to_metric_families(self.get("metrics"))}

        def value(family, sample, **labels):
            values = [s.value for s in found[family].samples if s.name == sample and labels.items() <= s.labels.items()]
            self.assertEqual(len(values), 1, (family, sample, labels))
            return values[0]

        route = {"route": "/invocations"}
        self.assertEqual(value("lockstep_requests", "lockstep_requests_total", status="200", **route), 4)
        seconds = "lockstep_request_seconds"
        self.assertEqual(value(seconds, seconds + "_count", **route), 4)
        self.assertGreater(value(seconds, seconds + "_sum", **route), 0)
        below = [s.value for s in found[seconds].samples if s.name == seconds + "_bucket" and s.labels["route"] == "/invocations"]
        self.assertEqual(below, sorted(below))
        self.assertEqual(value(seconds, seconds + "_bucket", le="+Inf", **route), 4)
        self.assertEqual(value("lockstep_pictures", "lockstep_pictures_total", model="digits"), 3)
        self.assertEqual(value("lockstep_pictures", "lockstep_pictures_total", model="painter"), 2)
        for gauge in ("lockstep_queue_length", "lockstep_requests_under_way"):
            self.assertEqual(value(gauge, gauge, model="painter"), 0)
        types = {name: family.type for name, family in found.items()}
        self.assertEqual(types, {"lockstep_requests": "counter", seconds: "histogram", "lockstep_queue_length": "gauge",
                                 "lockstep_requests_under_way": "gauge", "lockstep_pictures": "counter", "lockstep_evaluations": "counter", "lockstep_model_info": "gauge"})  # fmt: skip
        for family in found.values():
            self.assertTrue(family.documentation, family.name)

    def test_openapi(self):
        import json

        import jsonschema
        from openapi_spec_validator import validate

        described = json.loads(self.get("openapi.json"))
        validate(described)
        schema = described["paths"]["/invocations"]["post"]["requestBody"]["content"]["application/json"]["schema"]
        jsonschema.validate({"prompt": ["a 3"], "seed": -1, "guidance_scale": 2.5, "parameters": {"eta": 0}}, schema)
        for wrong in ({"colour": 1}, {"seed": -2}, {"height": "8"}, {"prompt": [3]}):
            with self.assertRaises(jsonschema.ValidationError):
                jsonschema.validate(wrong, schema)
        url, self.url = self.url, self.serve("painter", LOCKSTEP_SERVE_TOKEN="secret")
        try:
            request = urllib.request.Request(self.url + "openapi.json", headers={"Authorization": "Bearer secret"})
            validate(json.loads(urllib.request.urlopen(request, timeout=PATIENCE).read()))
        finally:
            self.url = url


if __name__ == "__main__":
    unittest.main(verbosity=2)
