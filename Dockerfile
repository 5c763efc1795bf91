# syntax=docker/dockerfile:1
# CPU by default; for CUDA: docker build --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cu130 .
ARG PYTHON_VERSION=3.11

FROM python:${PYTHON_VERSION}-slim AS build
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /src
RUN python -m venv /opt/bigopt
ENV PATH=/opt/bigopt/bin:$PATH
COPY constraints.txt ./
RUN pip install --index-url "${TORCH_INDEX}" "$(grep '^torch==' constraints.txt)"
COPY pyproject.toml README.md ./
COPY conf ./conf
COPY bigopt ./bigopt
COPY plugins ./plugins
RUN pip install -c constraints.txt .

FROM python:${PYTHON_VERSION}-slim
LABEL org.opencontainers.image.title="bigopt" \
      org.opencontainers.image.description="Smaller, faster or better models, with the evidence"
RUN useradd --create-home --uid 10001 bigopt
COPY --from=build /opt/bigopt /opt/bigopt
ENV PATH=/opt/bigopt/bin:$PATH PYTHONUNBUFFERED=1 MPLBACKEND=Agg
USER 10001
WORKDIR /home/bigopt/work
ENTRYPOINT ["bigopt"]
CMD ["--help"]
