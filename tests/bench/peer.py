# SPDX-License-Identifier: LGPL-2.1-or-later
"""qemu-storage-daemon, driven over QMP, for the job that ours is measured by."""
import json
import os
import socket
import subprocess
import time


class Peer:
    """A daemon with the image of a description open as "disk", and with other nodes beside it."""

    def __init__(self, folder, nodes):
        self.path = os.path.join(folder, "qmp")
        if os.path.exists(self.path):
            os.unlink(self.path)
        command = ["qemu-storage-daemon", "--chardev", f"socket,id=m,path={self.path},server=on,wait=off",
                   "--monitor", "m"]
        for node in nodes:
            command += ["--blockdev", json.dumps(node)]
        self.process = subprocess.Popen(command)
        self.socket = socket.socket(socket.AF_UNIX)
        for _ in range(200):
            try:
                self.socket.connect(self.path)
                break
            except OSError:
                time.sleep(0.02)
        self.stream = self.socket.makefile("rw")
        self.events = []
        self.receive()
        self.execute("qmp_capabilities")

    def receive(self):
        line = self.stream.readline()
        if not line:
            raise OSError("qemu-storage-daemon has gone")
        return json.loads(line)

    def execute(self, command, **arguments):
        self.stream.write(json.dumps({"execute": command, "arguments": arguments}) + "\n")
        self.stream.flush()
        while True:
            answer = self.receive()
            if "error" in answer:
                raise OSError(f"{command}: {answer['error']['desc']}")
            if "return" in answer:
                return answer["return"]
            self.events.append(answer)

    def wait_for(self, states):
        while True:
            event = self.events.pop(0) if self.events else self.receive()
            if event["event"] == "BLOCK_JOB_COMPLETED" and "error" in event["data"]:
                raise OSError(event["data"]["error"])
            if event["event"] == "JOB_STATUS_CHANGE" and event["data"]["status"] in states:
                return

    def seconds(self, command, **arguments):
        """From the start of the job to its being ready or over."""
        begin = time.monotonic()
        self.execute(command, **{"job-id": "job", **arguments})
        self.wait_for(("ready", "concluded"))
        return time.monotonic() - begin

    def close(self):
        self.process.terminate()
        self.process.wait()
        self.socket.close()
        if os.path.exists(self.path):
            os.unlink(self.path)
