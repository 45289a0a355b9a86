"""Writes the PrometheusRule of deploy/kubernetes/monitoring from deploy/prometheus/rules.yml: `make prometheusrule`."""

import pathlib
import textwrap

DEPLOY = pathlib.Path(__file__).parents[1]
HEAD = """\
# Written by deploy/kubernetes/prometheusrule.py from deploy/prometheus/rules.yml: change that file.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: lfm-serve
spec:
"""


def prometheusrule():
    """The groups as they stand, two spaces deeper: a YAML library would lose their comments."""
    _, groups = (DEPLOY / "prometheus/rules.yml").read_text().split("\ngroups:\n")
    return HEAD + textwrap.indent("groups:\n" + groups, "  ")


if __name__ == "__main__":
    (DEPLOY / "kubernetes/monitoring/prometheusrule.yaml").write_text(prometheusrule())
