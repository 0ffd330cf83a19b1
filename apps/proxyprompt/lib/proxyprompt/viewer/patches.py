"""What MONAI Label's bundled, older OHIF cannot do without, where the current one is not here.

Each change as the text it replaces, which occurs exactly once.
"""

from __future__ import annotations

from dataclasses import dataclass

MADE_FOR = "MONAI Label 0.8.5"
INDEX, STYLE, PANEL, SEGMENTATION = (
    "index.html",
    "app.bundle.css",
    "3933.bundle.92d0a0e9bc7e6861b7c9.js",  # the MONAI Label panel
    "7197.bundle.805c43530f838fa98d40.js",  # commands around DICOM SEG
)
SHA256: dict[str, str] = {
    INDEX: "8836f8614ec3341f7a14d3dfe2119e3e05101c0207d4dc43e41d5e1d2b0ae74c",
    STYLE: "15ea595ed7d5f82d84dad64929ec6ebb746a7d41e9e5d348638db942783e8b00",
    PANEL: "7844f59159b8eda422079064b0bffa17d2b76aa025b054097ff4ae8bc3b55acd",
    SEGMENTATION: "e13dc738ff027ee2e17b263ceb9b9928986ef21e9f587ff2edcbcad424c67272",
}


@dataclass(frozen=True)
class Patch:
    """``old`` becomes ``new`` in ``file``; why says what a user would miss without it."""

    file: str
    why: str
    old: str
    new: str


PATCHES = (
    Patch(
        INDEX,
        "nothing is asked for from elsewhere, which would leave the page blank behind a firewall",
        '<link href="https://fonts.googleapis.com/css?family=Inter:100,300,400,500,700&display=swap" rel="stylesheet" '
        'rel="preload" as="style"/>',
        "",
    ),
    Patch(INDEX, "the same", '<link rel="preconnect" href="https://fonts.gstatic.com" crossorigin/>', ""),
    Patch(
        STYLE,
        "the same",
        "@import url(https://fonts.googleapis.com/css2?family=Inter:wght@100..900&display=swap);\n"
        "@import url(https://fonts.googleapis.com/css?family=Inter:100,300,400,500,700&display=swap);\n",
        "",
    ),
    Patch(
        PANEL,
        "connects to the server that the page came from",
        "CookieUtils.getCookieString('MONAILABEL_SERVER_URL', "
        "'http://' + window.location.host.split(':')[0] + ':8000/');",
        "window.location.origin + '/';",
    ),
    Patch(
        SEGMENTATION,
        "its own export stores through the proxy (it is given no data source), which is how a label is submitted",
        "      await dataSource.store.dicom(naturalizedReport);",
        "      dataSource = dataSource || extensionManager.getActiveDataSource()[0];\n"
        "      await dataSource.store.dicom(naturalizedReport);",
    ),
)
