"""How MONAI Label's bundled OHIF differs here: each change as the text it replaces, which occurs exactly once.

The bundle is un-minified JavaScript. What is more than a hook is in ``texts.js`` and ``proxyprompt.js``, which these
call.
"""

from __future__ import annotations

from dataclasses import dataclass

MADE_FOR = "MONAI Label 0.8.5"
INDEX, MODE, PANEL, SEGMENTATION = (
    "index.html",
    "8008.bundle.a3dd38561f1a9418b099.js",  # OHIF's mode "Segmentation": brush, segment list, export
    "3933.bundle.92d0a0e9bc7e6861b7c9.js",  # the MONAI Label panel
    "7197.bundle.805c43530f838fa98d40.js",  # commands around DICOM SEG
)
SHA256: dict[str, str] = {
    INDEX: "8836f8614ec3341f7a14d3dfe2119e3e05101c0207d4dc43e41d5e1d2b0ae74c",
    MODE: "161065a23ac830772d02aaf79ac8014c4747aec2256d903533ed75419c450492",
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
        "the functions that the other patches call",
        '<script defer="defer" src="/ohif/app.bundle',
        '<script src="/ohif/texts.js"></script><script src="/ohif/proxyprompt.js"></script>'
        '<script defer="defer" src="/ohif/app.bundle',
    ),
    # One mode for everything: OHIF's "Segmentation" mode takes the place of "MONAI Label". It shows single images and
    # clips too, and its label maps work on them. Of two modes with one id, OHIF keeps the first, which this is.
    Patch(MODE, "takes the place of the mode", '{"UU":"@ohif/mode-segmentation"}', '{"UU":"@ohif/mode-monai-label"}'),
    Patch(MODE, "keeps its address", "routeName: 'segmentation',", "routeName: 'monai-label',"),
    Patch(MODE, "keeps its name", "displayName: 'Segmentation',", "displayName: 'MONAI Label',"),
    Patch(
        MODE,
        "the panel stands beside brush and segment list",
        "leftPanels: [ohif.leftPanel],",
        "leftPanels: ['@ohif/extension-monai-label.panelModule.monailabel', ohif.leftPanel],",
    ),
    Patch(
        MODE,
        "the panel is loaded",
        "  '@ohif/extension-cornerstone-dicom-seg': '^3.0.0'\n};",
        "  '@ohif/extension-cornerstone-dicom-seg': '^3.0.0',\n  '@ohif/extension-monai-label': '^3.0.0'\n};",
    ),
    Patch(
        MODE,
        "point prompts can be set",
        "      toolName: toolNames.UltrasoundDirectional\n    }],",
        "      toolName: toolNames.UltrasoundDirectional\n    }, {\n      toolName: 'ProbeMONAILabel'\n    }],",
    ),
    Patch(
        PANEL,
        "connects to the server that the page came from",
        "CookieUtils.getCookieString('MONAILABEL_SERVER_URL', "
        "'http://' + window.location.host.split(':')[0] + ':8000/');",
        "window.location.origin + '/';",
    ),
    Patch(
        PANEL,
        "connects without a click, which every next sample would ask for",
        "// await this.onInfo();",
        "await window.proxyprompt.ready(this);\n    await this.onInfo(this.serverURI);",
    ),
    Patch(
        PANEL,
        "hands over the viewer's library",
        "this.serverURI = 'http://127.0.0.1:8000';",
        "this.serverURI = window.location.origin;\n    window.proxyprompt.attach(dist_esm, esm);",
    ),
    Patch(
        PANEL,
        "a label map for any series, not for volumes only",
        """      const volumeLoadObject = dist_esm.cache.getVolume('1');
      if (!volumeLoadObject) {
        this.props.commandsManager.runCommand('loadSegmentationsForViewport', {
          segmentations
        });

        // Wait for Above Segmentations to be added/available
        setTimeout(() => {
          const {
            viewport
          } = this.getActiveViewportInfo();
          for (const segmentIndex of Object.keys(initialSegs)) {
            esm.segmentation.config.color.setSegmentIndexColor(viewport.viewportId, '1', """
        """initialSegs[segmentIndex].segmentIndex, initialSegs[segmentIndex].color);
          }
        }, 1000);
      }
""",
        "      await window.proxyprompt.connected(this, response.data, labelsOrdered);\n",
    ),
    Patch(
        PANEL,
        "segments of any label map",
        "function currentSegmentsInfo(segmentationService) {\n",
        "function currentSegmentsInfo(segmentationService) {\n"
        "  return window.proxyprompt.segments(segmentationService);\n",
    ),
    Patch(
        PANEL,
        "asks for the answer's JSON too: which supports, how sure",
        "result_extension = '.nrrd', output = 'image')",
        "result_extension = '.nrrd', output = 'all')",
    ),
    Patch(
        PANEL,
        "draws the answer and tells what it rests on",
        "      const ret = SegmentationReader.parseNrrdData(response.data);",
        "      return window.proxyprompt.show(this, response);\n"
        "      const ret = SegmentationReader.parseNrrdData(response.data);",
    ),
    Patch(
        PANEL,
        "says that it computes for as long as it does",
        "message: 'Running Auto-Segmentation...',\n        type: 'info',\n        duration: 7000",
        "message: 'Running Auto-Segmentation...',\n        type: 'info',\n        duration: Infinity",
    ),
    Patch(
        PANEL,
        "says why a segmentation failed",
        "message: 'Failed to Run Segmentation',",
        "message: window.proxyprompt.reason(response),",
    ),
    Patch(
        PANEL,
        "says why point prompts failed",
        "message: 'Failed to Run Inference for Point Prompts',",
        "message: window.proxyprompt.reason(response),",
    ),
    Patch(
        PANEL,
        "clicks on single images and clips",
        """      const {
        worldToIndex
      } = viewportInfo.viewportData.data[0].volume.imageData;
      const manager""",
        "      const manager",
    ),
    Patch(
        PANEL,
        "clicks as indices of the server's grid",
        """            const pt = annotation.data.handles.points[0];
            points[label].push(worldToIndex(pt).map(Math.round));""",
        "            points[label].push(window.proxyprompt.voxelOf(this.props, annotation));",
    ),
    Patch(
        PANEL,
        "what a request adds to its options stays out of the next one's, such as points that were taken back",
        "return this.state.options;",
        "return structuredClone(this.state.options);",
    ),
    Patch(
        PANEL,
        "no tab for models that this app does not have",
        "    return models;\n  }\n  getModelOrgans(model) {",
        "    return models.filter(m => info.data.models[m].type === 'vista3d');\n  }\n  getModelOrgans(model) {",
    ),
    Patch(
        PANEL,
        "says why there is no next sample",
        """      if (response.status !== 200) {
        this.notification.show({
          title: 'MONAI Label',
          message: 'Failed to Fetch Next Sample',""",
        """      if (response.status !== 200 || !response.data.id) {
        this.notification.show({
          title: 'MONAI Label',
          message: response.status === 200 ? 'Every study has a label' : window.proxyprompt.reason(response),""",
    ),
    Patch(
        PANEL,
        "says why a training did not start",
        "message: 'Failed to ' + (training ? 'STOP' : 'RUN') + ' training',",
        "message: window.proxyprompt.reason(response),",
    ),
    Patch(
        PANEL,
        "a training is followed",
        "  async componentDidMount() {\n    const training = await",
        """  componentDidUpdate(props, before) {
    if (this.state.training !== before.training) {
      this.props.onTraining();
    }
  }
  async componentDidMount() {
    const training = await""",
    ),
    Patch(
        PANEL,
        "what follows it may refresh the panel",
        "      ref: this.actions['activelearning'],\n",
        "      ref: this.actions['activelearning'],\n      onTraining: () => window.proxyprompt.watch(this),\n",
    ),
    Patch(
        PANEL,
        "how far a training is, and what became of it",
        "}, accuracy))))))));",
        """}, accuracy)))))), react.createElement("div", {
      id: "proxyprompt-training",
      style: { fontSize: "smaller", userSelect: "text" }
    }, ...window.proxyprompt.story(this.props.info.data, this.state.training).map(
      line => react.createElement("p", null, line)
    ))));""",
    ),
    Patch(
        PANEL,
        "a training that has not begun is not at its end",
        "ts.total_time ? 0 : ts.epoch ? ts.epoch : 1 : 0;",
        "ts.total_time ? 0 : ts.epoch ?? 0 : 0;",
    ),
    Patch(PANEL, "it is the Dice on held-out patients", '"Train Acc:"', '"Held out:"'),
    Patch(
        PANEL,
        "the chosen strategy is used",
        "onChange: this.onChangeStrategy,",
        "onChange: evt => this.setState({ strategy: evt.target.value }),",
    ),
    Patch(
        PANEL,
        "studies have names in the drop-downs, not only UIDs",
        "      name: a,\n      value: b\n    }, b)))",
        "      name: a,\n      value: b\n    }, window.proxyprompt.nameOf(b))))",
    ),
    Patch(
        PANEL,
        "submit, undo, and what the last answer rests on",
        """      onClick: this.openConfigurations
    }, "Options / Configurations"), /*#__PURE__*/react.createElement("hr", {
      className: "separator"
    })), isDataReady""",
        """      onClick: this.openConfigurations
    }, "Options / Configurations"), /*#__PURE__*/react.createElement("hr", {
      className: "separator"
    }), react.createElement("button", {
      id: "proxyprompt-submit",
      className: "actionButton",
      title: "Store the segmentation of this series as its final label",
      onClick: () => window.proxyprompt.submit(this)
    }, "Submit"), react.createElement("button", {
      id: "proxyprompt-undo",
      className: "actionButton",
      title: "Take back the last result, and what was painted after it; once more brings both back",
      onClick: () => window.proxyprompt.undo(this)
    }, "Undo"), react.createElement("div", {
      id: "proxyprompt-answer",
      style: { fontSize: "smaller", userSelect: "text" }
    })), isDataReady""",
    ),
    Patch(
        PANEL,
        "says what this model does",
        '"Experience fully automated segmentation for ", /*#__PURE__*/react.createElement("b", null, "everything"), '
        "' ', \"from the pre-trained model.\"",
        '"Segments this study as labelled studies show it. Choose them under Options."',
    ),
    Patch(
        SEGMENTATION,
        "OHIF's own export stores through the proxy (it is given no data source)",
        "      await dataSource.store.dicom(naturalizedReport);",
        "      dataSource = dataSource || extensionManager.getActiveDataSource()[0];\n"
        "      await dataSource.store.dicom(naturalizedReport);",
    ),
)
