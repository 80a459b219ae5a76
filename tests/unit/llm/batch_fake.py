"""A fake of OpenAI's Batch API: files, jobs with all their states, errors, expiry and lost replies."""

import json
import re
import time

from reflexion.testing import HttpReply, ScriptedEndpoint


def _json(status: int, value: object) -> HttpReply:
    return HttpReply(status, json.dumps(value).encode())


class BatchEndpoint(ScriptedEndpoint):
    """`looks`: how often a job is looked at before it ends. `ends`: how the coming jobs end, in order.

    An end is a status, or a function of the job's number of requests that gives how many are answered
    before it expires. `spoilt`: custom results by text of the prompt.
    """

    def __init__(self, *args, looks=1, ends=(), spoilt=None, lose_create=0, **kwargs):
        super().__init__(*args, **kwargs)
        self.looks, self.ends, self.spoilt = looks, list(ends), spoilt or {}
        self.lose_create = lose_create
        self.files: dict[str, bytes] = {}
        self.jobs: dict[str, dict] = {}
        self.plans: dict[str, object] = {}
        self.admin_faults: list[int] = []
        self.requests: list[str] = []

    async def respond(self, method, target, headers, raw):
        path = target.partition("?")[0]
        if not path.startswith(("/v1/files", "/v1/batches")):
            return await super().respond(method, target, headers, raw)
        self.requests.append(f"{method} {path}")
        if self.admin_faults:
            return _json(self.admin_faults.pop(0), {"error": {"message": "scripted", "code": None}})
        parts = path.split("/")[2:]
        match method, parts:
            case "POST", ["files"]:
                return self._upload(headers, raw)
            case "GET", ["files", name, "content"] if name in self.files:
                return HttpReply(200, self.files[name], content_type="application/octet-stream")
            case "POST", ["batches"]:
                return self._create(json.loads(raw))
            case "GET", ["batches"]:
                jobs = sorted(self.jobs.values(), key=lambda j: -j["created_at"])
                return _json(200, {"object": "list", "data": jobs, "has_more": False})
            case "GET", ["batches", name] if name in self.jobs:
                return self._look(self.jobs[name])
            case _:
                return _json(404, {"error": {"message": f"No such object: {path}", "code": None}})

    def _upload(self, headers, raw):
        boundary = re.search("boundary=(.+)", headers["content-type"]).group(1).strip('"').encode()
        fields = {}
        for part in raw.split(b"--" + boundary)[1:-1]:
            head, _, value = part.strip(b"\r\n").partition(b"\r\n\r\n")
            fields[re.search(rb'name="(\w+)"', head).group(1)] = value
        assert fields[b"purpose"] == b"batch"
        name = f"file-{len(self.files)}"
        self.files[name] = fields[b"file"]
        return _json(
            200,
            {
                "id": name,
                "object": "file",
                "bytes": len(fields[b"file"]),
                "created_at": 1,
                "filename": "x.jsonl",
                "purpose": "batch",
                "status": "processed",
            },
        )

    def _create(self, body):
        if body["endpoint"] != "/v1/chat/completions" or body["completion_window"] != "24h":
            return _json(400, {"error": {"message": "unsupported"}})
        name = f"batch_{len(self.jobs)}"
        self.jobs[name] = {
            "id": name,
            "object": "batch",
            "endpoint": body["endpoint"],
            "input_file_id": body["input_file_id"],
            "completion_window": "24h",
            "status": "validating",
            "created_at": int(time.time()) + len(self.jobs),
            "metadata": body.get("metadata"),
            "output_file_id": None,
            "error_file_id": None,
            "errors": None,
        }
        self.plans[name] = [self.looks, self.ends.pop(0) if self.ends else "completed"]
        if self.lose_create:
            self.lose_create -= 1
            return HttpReply(200, b"{}" * 50, cut=True)  # made, and its reply lost
        return _json(200, self.jobs[name])

    def _look(self, job):
        plan = self.plans[job["id"]]
        if plan[0] > 0:
            plan[0] -= 1
            job["status"] = "in_progress"
        elif job["status"] in ("validating", "in_progress"):
            self._end(job, plan[1])
        return _json(200, job)

    def _end(self, job, end):
        lines = [json.loads(line) for line in self.files[job["input_file_id"]].splitlines()]
        assert len({line["custom_id"] for line in lines}) == len(lines)
        done = len(lines)
        if callable(end):
            done, job["status"] = end(len(lines)), "expired"
        else:
            job["status"] = end
        if end == "failed":
            data = [{"code": "token_limit_exceeded", "message": "Enqueued token limit reached", "line": None}]
            job["errors"] = {"object": "list", "data": data}
            return
        good, bad = [], []
        for index, line in enumerate(lines):
            spoilt = next((v for k, v in self.spoilt.items() if k in json.dumps(line["body"])), None)
            if index >= done:
                error = {"code": "batch_expired", "message": "This request could not be executed in time."}
                bad.append({"id": f"r{index}", "custom_id": line["custom_id"], "response": None, "error": error})
            elif spoilt is not None:
                bad.append({"id": f"r{index}", "custom_id": line["custom_id"], "response": spoilt, "error": None})
            else:
                response = {"status_code": 200, "request_id": "q", "body": self.completion(line["body"])}
                good.append({"id": f"r{index}", "custom_id": line["custom_id"], "response": response, "error": None})
        good.reverse()  # results come in any order
        for field, entries in (("output_file_id", good), ("error_file_id", bad)):
            if entries:
                name = f"file-{len(self.files)}"
                self.files[name] = "\n".join(json.dumps(e) for e in entries).encode() + b"\n"
                job[field] = name
