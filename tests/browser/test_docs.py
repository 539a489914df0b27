"""The pages of the documents, as people see them."""

from pathlib import Path

from tests.browser.chromium import Page
from tests.mesh.running import Account, Up


async def test_a_person_logs_in_and_tries_an_operation(
    up: Up, account: Account, page: Page, tmp_path: Path
):
    await page.ask("Page.navigate", url=f"{up.url}/docs")
    await page.find("#operations-auth-GetMe")
    await page.click(".auth-wrapper .authorize")
    await page.type("#oauth_username", account.email)
    await page.type("#oauth_password", "password123")
    await page.click(".auth-container .modal-btn.authorize")
    await page.find(".auth-container h6", "Authorized")
    await page.click(".auth-btn-wrapper .btn-done")
    await page.click("#operations-auth-GetMe .opblock-summary-control")
    await page.click("#operations-auth-GetMe .execute")
    await page.find("#operations-auth-GetMe .live-responses-table .response-col_status", "200")
    await page.find("#operations-auth-GetMe .live-responses-table", account.email)
    await page.picture(tmp_path / "docs.png")
    assert not page.complaints, "\n".join(page.complaints)
    assert page.origins() == {up.url}


async def test_the_reference_is_read(up: Up, page: Page, tmp_path: Path):
    await page.ask("Page.navigate", url=f"{up.url}/redoc")
    await page.find("h1", "khesht")
    await page.find("li[role=menuitem]", "Writes a reply and answers when it is whole")
    await page.find("h2", "Creates an item")
    await page.type("[role=search] input", "summarize")
    await page.find("[data-role='search:results']", "Sums up")
    await page.picture(tmp_path / "redoc.png")
    assert not page.complaints, "\n".join(page.complaints)
    assert page.origins() == {up.url}
