# The image of workers on Dataflow, Flink and Spark, and of launchers of the Flex Template deploy/flex_template.json.
#
#   docker build -t IMAGE .        or        gcloud builds submit --tag IMAGE
#
# Workers and launcher must have the same Beam (Dataflow compares them since 2.73) and the same Python: launch from this
# image, or from a Python 3.11 with `pip install -c constraints.txt ".[gcp]"`.
ARG LAUNCHER=20260122_RC00
FROM gcr.io/dataflow-templates-base/python311-template-launcher-base:${LAUNCHER} AS template_launcher

FROM apache/beam_python3.11_sdk:2.77.0
WORKDIR /vqbeam

# torch of PyPI for Linux brings CUDA; Dataflow mounts the driver here.
ENV LD_LIBRARY_PATH=/usr/local/nvidia/lib:/usr/local/nvidia/lib64 \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
COPY constraints.txt .
RUN pip install --no-cache-dir -c constraints.txt torch

COPY setup.py pyproject.toml MANIFEST.in README.md LICENSE NOTICE ./
COPY deploy/links.py deploy/links.py
COPY models models
COPY pipelines pipelines
COPY transforms transforms
COPY vqbeam vqbeam
RUN pip install --no-cache-dir -c constraints.txt ".[gcp,numba]" && pip check

COPY --from=template_launcher /opt/google/dataflow/python_template_launcher /opt/google/dataflow/python_template_launcher
COPY deploy/flex_launch.py /template/flex_launch.py
ENV FLEX_TEMPLATE_PYTHON_PY_FILE=/template/flex_launch.py
WORKDIR /

# Of workers. `gcloud dataflow flex-template` starts /opt/google/dataflow/python_template_launcher instead.
ENTRYPOINT ["/opt/apache/beam/boot"]
