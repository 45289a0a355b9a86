"""gRPC's own services, and our protocol description compared with Triton's."""

import grpc
import numpy as np
import pytest
import tritonclient.grpc as grpcclient
from conftest import GOLDEN
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from tritonclient.grpc import model_config_pb2, service_pb2, service_pb2_grpc
from tritonclient.utils import InferenceServerException

SERVICE = "inference.GRPCInferenceService"


@pytest.fixture(scope="module")
def channel(triton):
    with grpc.insecure_channel(triton.grpc) as channel:
        yield channel


def test_health(channel):
    health = health_pb2_grpc.HealthStub(channel)
    for service in ["", SERVICE]:
        answer = health.Check(health_pb2.HealthCheckRequest(service=service))
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
    with pytest.raises(grpc.RpcError) as raised:
        health.Check(health_pb2.HealthCheckRequest(service="other"))
    assert raised.value.code() == grpc.StatusCode.NOT_FOUND
    watch = health.Watch(health_pb2.HealthCheckRequest())
    assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
    watch.cancel()


def test_reflection_describes_a_part_of_tritons_protocol(channel):
    """Every call, message, field and value of our description matches Triton's in name, number and type."""
    database = ProtoReflectionDescriptorDatabase(channel)
    assert {SERVICE, "grpc.health.v1.Health"} <= set(database.get_services())
    ours = DescriptorPool(database).FindServiceByName(SERVICE)
    theirs = service_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"]
    seen = set()

    def same(message, other):
        assert message.full_name == other.full_name
        if message.full_name in seen:
            return
        seen.add(message.full_name)
        for field in message.fields:
            its = other.fields_by_name[field.name]
            assert (field.number, field.type, field.is_repeated) == (its.number, its.type, its.is_repeated), field.full_name
            if field.message_type:
                same(field.message_type, its.message_type)
            if field.enum_type:
                assert field.enum_type.full_name == its.enum_type.full_name
                values = model_config_pb2.DESCRIPTOR.enum_types_by_name[field.enum_type.name].values_by_name
                assert all(values[value.name].number == value.number for value in field.enum_type.values)

    for method in ours.methods:
        its = theirs.methods_by_name[method.name]
        same(method.input_type, its.input_type)
        same(method.output_type, its.output_type)
    assert len(ours.methods) == 8 and "inference.ModelInferRequest" in seen


def test_typed_contents(channel, triton):
    """KServe's own stubs fill typed contents."""
    path = GOLDEN / "orig_rocket.jpg"
    request = service_pb2.ModelInferRequest(model_name="lfm")
    given = request.inputs.add(name="image", datatype="BYTES", shape=[1])
    given.contents.bytes_contents.append(path.read_bytes())
    request.outputs.add(name="logit")
    answer = service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer(request)
    assert np.frombuffer(answer.raw_output_contents[0], np.float32)[0] == np.float32(triton.score(path)["logit"])


def test_the_clients_deadline(triton):
    client = grpcclient.InferenceServerClient(triton.grpc)
    data = np.array([(GOLDEN / "orig_rocket.jpg").read_bytes()], dtype=np.object_)
    given = grpcclient.InferInput("image", [1], "BYTES").set_data_from_numpy(data)
    with pytest.raises(InferenceServerException, match="(?i)deadline"):
        client.infer("lfm", [given], client_timeout=0.002)
    client.infer("lfm", [given], client_timeout=60)
    client.close()
