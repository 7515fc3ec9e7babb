"""The contract as a Python programmer meets it: stubs made by grpcio-tools, nothing of this project.

Environment: SERVER (host:port), CAPTURE_NPY and CAPTURE_SAFETENSORS (files that `llama-steer capture`
wrote of PROMPT at layers 2 and 5).
"""
import os
import threading
import unittest

import grpc
import numpy as np
from google.protobuf import descriptor_pool
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from grpc_status import rpc_status
from safetensors.numpy import load_file

from llamasteer.v1 import inference_pb2 as inf
from llamasteer.v1 import inference_pb2_grpc, model_pb2, model_pb2_grpc, steering_pb2, vector_pb2, vector_pb2_grpc

PROMPT = "The hotel was very"
HIDDEN = 256
CHANNEL = grpc.insecure_channel(os.environ["SERVER"])
inference = inference_pb2_grpc.InferenceServiceStub(CHANNEL)
vectors = vector_pb2_grpc.VectorServiceStub(CHANNEL)
model = model_pb2_grpc.ModelServiceStub(CHANNEL)


def greedy(**fields):
    return inf.Sampling(temperature=0, ignore_eos=True, **fields)


def capture(prompts, layers, dtype=inf.D_TYPE_FLOAT32, **fields):
    """{(input, layer): [rows, hidden] float32}"""
    request = inf.CaptureActivationsRequest(
        inputs=[inf.CaptureInput(prompt=prompt) for prompt in prompts],
        capture=inf.CaptureSpec(sites=[inf.SITE_RESID_POST], layers=layers, dtype=dtype), **fields)
    rows = {}
    for message in inference.CaptureActivations(request):
        if message.WhichOneof("event") == "finished":
            return rows
        chunk = message.activations
        raw = np.frombuffer(chunk.data, {inf.D_TYPE_FLOAT32: "<f4", inf.D_TYPE_FLOAT16: "<f2", inf.D_TYPE_BFLOAT16: "<u2"}[dtype])
        if dtype == inf.D_TYPE_BFLOAT16:
            raw = (raw.astype(np.uint32) << 16).view(np.float32)
        block = raw.astype(np.float32).reshape([int(size) for size in chunk.shape])
        key = (chunk.input_index, chunk.layer)
        rows[key] = np.concatenate([rows[key], block]) if key in rows else block
    raise AssertionError("the stream ended without `finished`")


def create(vector_id, values, layer=3):
    row = steering_pb2.LayerRow(layer=layer, data=np.asarray(values, "<f4").tobytes())
    return vectors.CreateVector(vector_pb2.CreateVectorRequest(vector_id=vector_id, rows=[row]))


def failure(call, *args, **kwargs):
    """The gRPC error of a call, and its google.rpc details by name."""
    try:
        call(*args, **kwargs)
    except grpc.RpcError as error:
        status = rpc_status.from_call(error)
        return error, {any_.TypeName(): any_ for any_ in (status.details if status else [])}
    raise AssertionError("the call did not fail")


class Contract(unittest.TestCase):
    def test_reflection_gives_the_same_contract_as_the_files(self):
        pool = descriptor_pool.DescriptorPool(ProtoReflectionDescriptorDatabase(CHANNEL))
        for module, name in ((inf, "Inference"), (vector_pb2, "Vector"), (model_pb2, "Model")):
            served = pool.FindServiceByName(f"llamasteer.v1.{name}Service")
            local = module.DESCRIPTOR.services_by_name[f"{name}Service"]
            self.assertEqual([m.name for m in served.methods], [m.name for m in local.methods])
            for method in local.methods:
                there = served.methods_by_name[method.name].input_type
                self.assertEqual([(f.name, f.number, f.type, f.has_presence) for f in there.fields],
                                 [(f.name, f.number, f.type, f.has_presence) for f in method.input_type.fields])

    def test_health_names_every_service(self):
        health = health_pb2_grpc.HealthStub(CHANNEL)
        for service in ("", "llamasteer.v1.InferenceService", "llamasteer.v1.VectorService", "llamasteer.v1.ProbeService",
                        "llamasteer.v1.ModelService"):
            answer = health.Check(health_pb2.HealthCheckRequest(service=service))
            self.assertEqual(answer.status, health_pb2.HealthCheckResponse.SERVING)

    def test_int32_and_optional_fields_arrive_as_meant(self):
        create("range", np.full(HIDDEN, 0.5))
        start_only = steering_pb2.Positions(range=steering_pb2.TokenRange(start=-2))
        request = inf.GenerateRequest(prompt=PROMPT, sampling=greedy(max_new_tokens=3), steering=[
            steering_pb2.Steering(vector_id="range", coefficient=0.25, positions=start_only)])
        applied = inference.Generate(request).applied[0]
        self.assertEqual((applied.prompt_tokens, applied.generated_tokens), (2, 2))
        self.assertEqual(applied.coefficient, 0.25)
        self.assertFalse(applied.HasField("position_end"))


class Generation(unittest.TestCase):
    def test_stream_and_unary_agree_and_seeds_repeat(self):
        sampling = inf.Sampling(seed=2**63 + 11, max_new_tokens=12, temperature=1, ignore_eos=True)
        request = inf.GenerateRequest(prompt=PROMPT, sampling=sampling)
        whole = inference.Generate(request)
        self.assertEqual(whole.seed, 2**63 + 11)
        self.assertEqual(len(whole.completions[0].token_ids), 12)
        tokens, text = [], ""
        for message in inference.GenerateStream(request):
            tokens += message.delta.token_ids
            text += message.delta.text
        self.assertEqual(tokens, list(whole.completions[0].token_ids))
        self.assertEqual(text, whole.completions[0].text)

    def test_a_steered_request_is_the_unsteered_one_plus_the_vector(self):
        direction = np.linspace(-1, 1, HIDDEN, dtype=np.float32)
        create("line", direction)
        plain = capture([PROMPT], [2, 3, 4])
        steered = capture([PROMPT], [2, 3, 4], steering=[steering_pb2.Steering(vector_id="line", coefficient=0.5)])
        np.testing.assert_array_equal(steered[0, 2], plain[0, 2])
        np.testing.assert_allclose(steered[0, 3], plain[0, 3] + 0.5 * direction, rtol=0, atol=1e-6)
        self.assertGreater(np.abs(steered[0, 4] - plain[0, 4]).max(), 1e-3)

    def test_logit_bias_map_and_scores(self):
        target = model.Tokenize(model_pb2.TokenizeRequest(text=" was", add_special_tokens=False)).token_ids[0]
        request = inf.GenerateRequest(prompt=PROMPT, sampling=greedy(max_new_tokens=2, logit_bias={target: 100}))
        self.assertEqual(list(inference.Generate(request).completions[0].token_ids), [target] * 2)
        scored = inference.Score(inf.ScoreRequest(prompt=PROMPT, logprobs=5, continuations=[
            inf.Continuation(tokens=inf.TokenIds(ids=[target]))])).scores[0]
        self.assertEqual(len(scored.logprobs[0].top), 5)
        self.assertLessEqual(scored.sum_logprob, scored.logprobs[0].top[0].logprob)
        self.assertAlmostEqual(scored.perplexity, np.exp(-scored.sum_logprob), places=6)

    def test_cancelling_ends_the_stream(self):
        stream = inference.GenerateStream(inf.GenerateRequest(prompt=PROMPT, sampling=greedy(max_new_tokens=1500)))
        next(stream)
        threading.Timer(0.05, stream.cancel).start()
        with self.assertRaises(grpc.RpcError) as raised:
            for _ in stream:
                pass
        self.assertEqual(raised.exception.code(), grpc.StatusCode.CANCELLED)

    def test_a_deadline_ends_the_call(self):
        request = inf.GenerateRequest(prompt=PROMPT, sampling=greedy(max_new_tokens=1500, n=4))
        error, _ = failure(inference.Generate, request, timeout=0.1)
        self.assertEqual(error.code(), grpc.StatusCode.DEADLINE_EXCEEDED)


class Capture(unittest.TestCase):
    def test_halves_are_the_rounded_floats(self):
        exact = capture([PROMPT], [5])[0, 5]
        half = capture([PROMPT], [5], inf.D_TYPE_FLOAT16)[0, 5]
        np.testing.assert_array_equal(half, exact.astype(np.float16).astype(np.float32))
        brain = capture([PROMPT], [5], inf.D_TYPE_BFLOAT16)[0, 5]
        bits = exact.view(np.uint32)
        # To nearest, ties to even, in integer arithmetic.
        rounded = ((bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000).view(np.float32)
        np.testing.assert_array_equal(brain, rounded)

    def test_files_of_the_command_line_hold_what_the_rpc_gives(self):
        rows = capture([PROMPT], [2, 5])
        array = np.load(os.environ["CAPTURE_NPY"], allow_pickle=False)
        np.testing.assert_array_equal(array, np.stack([rows[0, 2], rows[0, 5]]))
        tensors = load_file(os.environ["CAPTURE_SAFETENSORS"])
        for layer in (2, 5):
            np.testing.assert_array_equal(tensors[f"input.0.resid_post.layer.{layer}"], rows[0, layer])
        ids = model.Tokenize(model_pb2.TokenizeRequest(text=PROMPT)).token_ids
        self.assertEqual(tensors["input.0.token_ids"].tolist(), list(ids))
        self.assertEqual(tensors["input.0.positions"].tolist(), list(range(len(ids))))


class Errors(unittest.TestCase):
    def test_bad_request_names_the_field(self):
        error, details = failure(inference.Generate, inf.GenerateRequest(prompt="x", sampling=inf.Sampling(top_p=2)))
        self.assertEqual(error.code(), grpc.StatusCode.INVALID_ARGUMENT)
        bad = error_details_pb2.BadRequest()
        details["google.rpc.BadRequest"].Unpack(bad)
        self.assertEqual(bad.field_violations[0].field, "sampling.top_p")

    def test_nan_rows_and_wrong_widths_are_refused(self):
        for values in (np.full(HIDDEN, np.nan), np.ones(HIDDEN - 1)):
            error, _ = failure(create, "bad", values)
            self.assertEqual(error.code(), grpc.StatusCode.INVALID_ARGUMENT)

    def test_unknown_vector_is_named(self):
        error, details = failure(vectors.GetVector, vector_pb2.GetVectorRequest(vector_id="nobody"))
        self.assertEqual(error.code(), grpc.StatusCode.NOT_FOUND)
        resource = error_details_pb2.ResourceInfo()
        details["google.rpc.ResourceInfo"].Unpack(resource)
        self.assertEqual((resource.resource_type, resource.resource_name), ("vector", "nobody"))

    def test_other_content_under_the_same_id_already_exists(self):
        first = create("same", np.ones(HIDDEN))
        self.assertEqual(create("same", np.ones(HIDDEN)).digest, first.digest)
        error, _ = failure(create, "same", np.zeros(HIDDEN) + 2)
        self.assertEqual(error.code(), grpc.StatusCode.ALREADY_EXISTS)

    def test_broken_bytes_do_not_hurt_the_server(self):
        raw = CHANNEL.unary_unary("/llamasteer.v1.InferenceService/Generate")
        for payload in (b"\xff" * 9, b"\x0a\xff\xff\xff\xff\x7f", b"\x0a\x02\xc3\x28"):
            error, _ = failure(raw, payload)
            self.assertEqual(error.code(), grpc.StatusCode.INVALID_ARGUMENT)
        self.assertTrue(inference.Generate(inf.GenerateRequest(prompt="x", sampling=greedy(max_new_tokens=1))).completions)

    def test_an_unknown_method_is_unimplemented(self):
        error, _ = failure(CHANNEL.unary_unary("/llamasteer.v1.InferenceService/Nothing"), b"")
        self.assertEqual(error.code(), grpc.StatusCode.UNIMPLEMENTED)


if __name__ == "__main__":
    unittest.main()
