#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The page of `lockstep serve` in headless Chromium, which is told what to do by its DevTools protocol over two pipes.

LOCKSTEP=build/release/lockstep tests/launch/browser_test.py      skipped where Chromium is not installed
"""

import base64
import json
import os
import pathlib
import re
import select
import shutil
import subprocess
import sys
import time
import unittest

sys.dont_write_bytecode = True
ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/launch"))

from served import PATIENCE, Served, png  # noqa: E402

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


class Browser:
    """One page. Commands are answered by their numbers; what happens meanwhile is kept in `events`."""

    def __init__(self, folder):
        commands, self.to = os.pipe()
        self.from_, answers = os.pipe()
        words = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
                 "--disable-background-networking", "--remote-debugging-pipe", f"--user-data-dir={folder}", "about:blank"]
        script = f'exec "$@" 3<&{commands} 4>&{answers}'
        self.process = subprocess.Popen(["bash", "-c", script, "bash", *words], pass_fds=(commands, answers),
                                        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        os.close(commands)
        os.close(answers)
        self.number, self.got, self.events, self.session = 0, b"", [], None
        target = self("Target.createTarget", url="about:blank")["targetId"]
        self.session = self("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "DOM"):
            self(f"{domain}.enable")

    def close(self):
        for descriptor in (self.to, self.from_):
            os.close(descriptor)
        self.process.terminate()
        self.process.wait()

    def __call__(self, method, **parameters):
        self.number += 1
        message = {"id": self.number, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.to, json.dumps(message).encode() + b"\0")
        while True:
            while b"\0" not in self.got:
                if not select.select([self.from_], [], [], PATIENCE)[0]:
                    raise RuntimeError(f"{method}: the browser does not answer")
                more = os.read(self.from_, 1 << 16)
                if not more:
                    raise RuntimeError("the browser has ended")
                self.got += more
            text, self.got = self.got.split(b"\0", 1)
            answer = json.loads(text)
            if answer.get("id") == self.number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']['message']}")
                return answer["result"]
            self.events.append(answer)

    def value(self, expression):
        result = self("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in result:
            raise RuntimeError(result["exceptionDetails"]["exception"]["description"])
        return result["result"].get("value")

    def wait(self, expression):
        for _ in range(PATIENCE * 20):
            if self.value(expression):
                return
            time.sleep(0.05)
        raise AssertionError(f"it did not become true: {expression}; the page says {self.value('document.body.innerText')}")

    def open(self, url):
        self.events.clear()
        self("Page.navigate", url=url)
        self.wait("document.readyState === 'complete' && !!document.getElementById('status')")

    def key(self, key, code, shift=False, text=""):
        words = {"key": key, "code": key, "windowsVirtualKeyCode": code, "modifiers": 8 if shift else 0}
        self("Input.dispatchKeyEvent", type="keyDown", text=text, **words)
        self("Input.dispatchKeyEvent", type="keyUp", **words)

    def mouse(self, kind, x, y):
        self("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", buttons=0 if kind == "mouseReleased" else 1,
             clickCount=1)


@unittest.skipUnless(CHROMIUM, "Chromium is not installed")
class Page(Served):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.browser = Browser(cls.folder / "profile")
        cls.stack.callback(cls.browser.close)

    def setUp(self):
        self.browser("Emulation.clearDeviceMetricsOverride")
        self.browser.open(self.url)
        self.browser.wait("!$('draw').hidden")

    def tearDown(self):
        # Nothing is asked of anybody else, and nothing failed that nobody saw.
        for event in self.browser.events:
            if event.get("method") == "Network.requestWillBeSent":
                self.assertRegex(event["params"]["request"]["url"], f"^({re.escape(self.url)}|data:)")
            self.assertNotEqual(event.get("method"), "Runtime.exceptionThrown", event)

    def choose(self, model, section):
        self.browser.value(f"$('model').value = '{model}'; $('model').dispatchEvent(new Event('change'))")
        self.browser.wait(f"!$('{section}').hidden")

    def test_a_prompt_becomes_the_picture_that_invocations_draws(self):
        b = self.browser
        b.value("""window.seen = 0; window.shown = [];
                   new MutationObserver(() => { seen += $('now').children.length; }).observe($('now'), {childList: true});
                   new MutationObserver(() => { shown.push($('progress').value); }).observe($('status'), {childList: true});
                   $('steps').value = 6; $('count').value = 2; $('prompt').focus()""")
        b("Input.insertText", text="a 3")
        b.key("Enter", 13, text="\r")
        b.wait("$('pictures').children.length === 2")
        self.assertGreater(b.value("seen"), 0, "pictures on their way are shown")
        self.assertIn(0.5, b.value("shown"), "so is how far they are")
        self.assertTrue(b.value("$('progress').hidden && !$('go').disabled"))
        # The newest stands first.
        shown = b.value("[...$('pictures').children].map(f => f.querySelector('img').src).reverse()")
        request = json.loads(b.value("$('pictures').children[0].dataset.request"))
        self.assertEqual((request["prompt"], request["num_inference_steps"]), ("a 3", 6))
        drawn = self.ask(dict(request, model="painter"))["generated_images"]
        self.assertEqual(shown, ["data:image/png;base64," + picture for picture in drawn])
        caption = b.value("$('pictures').children[0].innerText")
        for words in ("a 3", f"seed {request['seed']}", "6 steps", "guidance 3", "8×8"):
            self.assertIn(words, caption)
        # Again: the same settings, the same pictures.
        b.value("$('pictures').children[0].querySelector('button').click()")
        self.assertEqual(b.value("[$('prompt').value, $('seed').value]"), ["a 3", request["seed"]])
        b.value("$('draw').requestSubmit()")
        b.wait("$('pictures').children.length === 4")
        again = b.value("[...$('pictures').children].slice(0, 2).map(f => f.querySelector('img').src).reverse()")
        self.assertEqual(again, shown)

    def test_escape_stops_a_drawing_and_what_is_refused_is_said(self):
        b = self.browser
        # Pressed by the page itself at the first step, as the drawing does not wait for this program.
        b.value("""new MutationObserver(() => {
                     if ($('status').textContent.startsWith('Step'))
                       document.body.dispatchEvent(new KeyboardEvent('keydown', {key: 'Escape', bubbles: true}));
                   }).observe($('status'), {childList: true});
                   $('prompt').value = 'a 3'; $('steps').value = 1000; $('draw').requestSubmit()""")
        b.wait("$('status').textContent === 'Stopped.' && !$('go').disabled && $('progress').hidden")
        b.value("$('seed').value = 'x'; $('steps').value = 2; $('draw').requestSubmit()")
        b.wait("$('status').textContent.startsWith('seed is a whole number')")

    def prediction(self, number=0):
        """What the page shows, and what /invocations says of the same bytes."""
        one = f"$('answer').children[{number}]"
        coded = self.browser.value(f"{one}.querySelector('img').src").split(",")[1]
        answer = self.ask({"inputs": coded, "model": "digits"})
        self.assertEqual(self.browser.value(f"{one}.dataset.class"), answer["class"])
        self.assertEqual(json.loads(self.browser.value(f"{one}.dataset.probabilities")), answer["probabilities"])
        return base64.b64decode(coded)

    def test_a_digit_is_drawn_with_the_mouse_and_with_keys(self):
        b = self.browser
        self.choose("digits", "classify")
        b.value("$('ask').click()")
        b.wait("$('status').textContent === 'There is nothing drawn.'")
        x, y, side = b.value("(box => [box.left, box.top, box.width])($('canvas').getBoundingClientRect())")
        b.mouse("mousePressed", x + side * 0.4, y + side * 0.2)
        for step in range(10):
            b.mouse("mouseMoved", x + side * 0.4, y + side * (0.2 + 0.06 * step))
        b.mouse("mouseReleased", x + side * 0.4, y + side * 0.74)
        b.value("$('ask').click()")
        b.wait("$('answer').children.length === 1")
        drawn = self.prediction()
        b.value("$('clear').click(); $('canvas').focus()")
        for _ in range(12):
            b.key("ArrowDown", 40, shift=True)
        for _ in range(6):
            b.key("ArrowRight", 39, shift=True)
        b.key("Enter", 13)
        b.wait("$('answer').children.length === 1")
        self.assertNotEqual(self.prediction(), drawn)

    def test_files_are_dropped(self):
        b = self.browser
        self.choose("digits", "classify")
        # By the page itself: headless Chromium does not answer Input.dispatchDragEvent with files.
        coded = base64.b64encode(png(3)).decode()
        b.value(f"""const data = new DataTransfer();
                    data.items.add(new File([Uint8Array.from(atob('{coded}'), c => c.charCodeAt(0))], 'digit.png',
                                            {{type: 'image/png'}}));
                    for (const kind of ['dragenter', 'dragover', 'drop'])
                      $('drop').dispatchEvent(new DragEvent(kind, {{dataTransfer: data, bubbles: true, cancelable: true}}))""")
        b.wait("$('answer').children.length === 1")
        self.assertEqual(self.prediction(), png(3))
        # Or chosen, several at once.
        node = b("DOM.querySelector", nodeId=b("DOM.getDocument")["root"]["nodeId"], selector="#file")["nodeId"]
        b("DOM.setFileInputFiles", nodeId=node, files=[str(self.folder / "digit.png")] * 2)
        b.wait("$('answer').children.length === 3")

    def test_it_fits_a_phone(self):
        b = self.browser
        b("Emulation.setDeviceMetricsOverride", width=400, height=800, deviceScaleFactor=2, mobile=True)
        for model, section in (("painter", "draw"), ("digits", "classify")):
            self.choose(model, section)
            self.assertLessEqual(b.value("document.documentElement.scrollWidth"), 400)


if __name__ == "__main__":
    unittest.main(verbosity=2)
