"""The status page in a real browser: page.py SERVER FOLDER NODEFORGE SCREENSHOTS

The three nodes of lab3 go through their states while the page looks on; then it is given a thousand.
Prints nothing and exits 0 if all is well.
"""

import json
import re
import subprocess
import sys
import urllib.request

from playwright.sync_api import expect, sync_playwright

server, folder, nodeforge, screenshots = sys.argv[1:]
BROWSER = "/usr/bin/chromium-headless-shell"
MACS = {f"node{n}": f"52-54-00-03-00-1{n + 1}" for n in range(3)}


def arm(node):
    subprocess.run([nodeforge, "arm", node], cwd=folder, check=True, capture_output=True)


def event_token(node):
    """Boots the node as far as its script, and finds its token there."""
    with urllib.request.urlopen(f"{server}/pxe/ipxe/{MACS[node]}.ipxe") as answer:
        return re.search(r"nodeforge\.event_token=(\S+)", answer.read().decode())[1]


def post(node, token, **event):
    body = json.dumps({"node": node, **event}).encode()
    request = urllib.request.Request(f"{server}/events", body, {"Authorization": f"Bearer {token}"})
    urllib.request.urlopen(request).close()


def open_page(browser, **options):
    page = browser.new_context(**options).new_page()
    page.faults = []
    page.on("pageerror", lambda fault: page.faults.append(str(fault)))
    page.goto(server)
    expect(page.locator("#link")).to_have_text("live")
    return page


def tile(page, node):
    return page.locator(f'.node[data-name="{node}"]')


def three_nodes(browser):
    page = open_page(browser, viewport={"width": 1200, "height": 800})
    expect(page.locator("#cluster")).to_have_text("lab3")
    expect(page.locator(".node")).to_have_count(3)
    expect(tile(page, "node0")).to_contain_text("not installed")
    arm("node[0-2]")
    expect(tile(page, "node2")).to_contain_text("armed")
    tokens = {node: event_token(node) for node in MACS}
    expect(tile(page, "node1")).to_contain_text("installing")
    log = ["2 disks match <b>the rule</b>:", "  vda: MATCHES", "  vdb: MATCHES"]
    post("node2", tokens["node2"], step="disk", state="refused", message="2 disks match", log=log)
    expect(tile(page, "node2")).to_contain_text("failed")
    expect(page).to_have_title(re.compile("^1 failed"))

    # The failure's log, by keyboard alone.
    page.keyboard.press("f")
    expect(page.locator("#d-name")).to_have_text("node2")
    expect(page.locator("#d-reason")).to_contain_text("2 disks match")
    expect(page.locator("#d-log")).to_contain_text("2 disks match <b>the rule</b>:\n  vda: MATCHES")
    expect(page.locator("#line li").first).to_contain_text("disk")
    page.screenshot(path=f"{screenshots}/page.png")
    page.keyboard.press("Escape")
    expect(page.locator("#detail")).to_be_hidden()
    expect(tile(page, "node2")).to_be_focused()
    page.keyboard.press("ArrowLeft")
    expect(tile(page, "node1")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("#d-name")).to_have_text("node1")
    page.keyboard.press("Escape")
    page.keyboard.press("/")
    page.keyboard.type("node0")
    expect(page.locator(".node:visible")).to_have_count(1)
    page.keyboard.press("Escape")
    expect(page.locator(".node:visible")).to_have_count(3)
    assert page.faults == [], page.faults


def thousand_nodes(browser, scheme, viewport, phone):
    states = ["ready"] * 16 + ["installing", "armed", "firstboot", "failed"]
    rows = [
        {"name": f"srv{n:04}", "role": "server", "rack": f"r{n // 32:02}", "mac": None, "since": 1,
         "state": states[n % len(states)], "reason": "no disk" if n % 20 == 19 else None, "step": "x"}
        for n in range(1000)
    ]
    context = browser.new_context(color_scheme=scheme, viewport=viewport, is_mobile=phone, has_touch=phone)
    page = context.new_page()
    page.route("**/api/v1/nodes", lambda route: route.fulfill(json=rows))
    page.goto(server)
    expect(page.locator(".node")).to_have_count(1000)
    expect(page.locator("#total")).to_have_text("800 of 1000 ready")
    expect(page.locator(".rack")).to_have_count(32)
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(15, 18, 22)"
    assert dark == (scheme == "dark")
    # Nothing sticks out to the side.
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), viewport
    page.locator("#find").fill("r07 failed")
    expect(page.locator(".node:visible")).to_have_count(len([r for r in rows if r["rack"] == "r07" and r["reason"]]))
    page.locator("#find").fill("")
    expect(page.locator(".node:visible")).to_have_count(1000)
    page.screenshot(path=f"{screenshots}/page-1000-{scheme}{'-phone' if phone else ''}.png")


with sync_playwright() as playwright:
    browser = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
    three_nodes(browser)
    thousand_nodes(browser, "light", {"width": 1400, "height": 900}, False)
    thousand_nodes(browser, "dark", {"width": 390, "height": 844}, True)
    browser.close()
