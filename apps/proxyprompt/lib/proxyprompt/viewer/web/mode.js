/* The mode "Proxy Prompt": OHIF's viewports and segmentation tools, with our panel beside them. */

const DEFAULT = '@ohif/extension-default';
const CORNERSTONE = '@ohif/extension-cornerstone';
const SEG = '@ohif/extension-cornerstone-dicom-seg';
const OURS = '@proxyprompt/extension';
const NO_IMAGES = ['SEG', 'SR', 'PR', 'KO', 'DOC', 'RTSTRUCT', 'RTPLAN'];
const STACK = `${DEFAULT}.sopClassHandlerModule.stack`;
const SEGS = `${SEG}.sopClassHandlerModule.dicom-seg`;

const brush = (toolName, activeStrategy, more = {}) => ({
  toolName,
  parentTool: 'Brush',
  configuration: { activeStrategy, minRadius: 0.1, maxRadius: 200, ...more },
});

/* What each mouse button does, and which tools can take the left one. */
function tools({ toolNames, Enums }) {
  const { Primary, Secondary, Auxiliary, Wheel } = Enums.MouseBindings;
  const bound = (toolName, ...bindings) => ({ toolName, bindings });
  return {
    active: [
      bound(toolNames.WindowLevel, { mouseButton: Primary }),
      bound(toolNames.Pan, { mouseButton: Auxiliary }),
      bound(toolNames.Zoom, { mouseButton: Secondary }, { numTouchPoints: 2 }),
      bound(toolNames.StackScroll, { mouseButton: Wheel }, { numTouchPoints: 3 }),
    ],
    passive: [
      brush('CircularBrush', 'FILL_INSIDE_CIRCLE'),
      brush('CircularEraser', 'ERASE_INSIDE_CIRCLE'),
      brush('SphereBrush', 'FILL_INSIDE_SPHERE'),
      brush('SphereEraser', 'ERASE_INSIDE_SPHERE'),
      brush('ThresholdCircularBrush', 'THRESHOLD_INSIDE_CIRCLE'),
      brush('ThresholdSphereBrush', 'THRESHOLD_INSIDE_SPHERE'),
      brush('ThresholdCircularBrushDynamic', 'THRESHOLD_INSIDE_CIRCLE', {
        threshold: { isDynamic: true, dynamicRadius: 3 },
      }),
      brush('ThresholdSphereBrushDynamic', 'THRESHOLD_INSIDE_SPHERE', {
        threshold: { isDynamic: true, dynamicRadius: 3 },
      }),
      ...[
        ...['CircleScissors', 'RectangleScissors', 'SphereScissors', 'Length', 'Bidirectional', 'ArrowAnnotate'],
        ...['EllipticalROI', 'CircleROI', 'RectangleROI', 'PlanarFreehandROI', 'Angle', 'DragProbe', 'Probe'],
        ...['Magnify', 'WindowLevelRegion', 'SegmentSelect', 'SegmentBidirectional', 'LabelMapEditWithContourTool'],
      ]
        .filter(name => toolNames[name])
        .map(name => ({ toolName: toolNames[name] })),
    ],
    disabled: [{ toolName: toolNames.ReferenceLines }, { toolName: toolNames.AdvancedMagnify }],
  };
}

function onModeEnter({ servicesManager, extensionManager, commandsManager }) {
  const { toolGroupService, toolbarService, customizationService } = servicesManager.services;
  const { exports } = extensionManager.getModuleEntry(`${CORNERSTONE}.utilityModule.tools`);
  for (const group of ['default', 'mpr']) {
    const made = tools(exports);
    const named = commandsManager.run('initializeSegmentLabelTool', { tools: made }) ?? made;
    toolGroupService.createToolGroupAndAddTools(group, named);
  }
  toolGroupService.createToolGroupAndAddTools('volume3d', {
    active: [
      { toolName: exports.toolNames.TrackballRotateTool, bindings: [{ mouseButton: exports.Enums.MouseBindings.Primary }] },
      { toolName: exports.toolNames.Zoom, bindings: [{ mouseButton: exports.Enums.MouseBindings.Secondary }] },
    ],
  });
  toolbarService.register(customizationService.getCustomization('toolbarButtons').flat());
  const sections = Object.assign({}, ...customizationService.getCustomization('toolbarSections').flat());
  for (const [section, buttons] of Object.entries(sections)) {
    toolbarService.updateSection(section, buttons);
  }
}

function onModeExit({ servicesManager }) {
  const { services } = servicesManager;
  services.uiDialogService.hideAll();
  services.uiModalService.hide();
  for (const name of ['toolGroupService', 'syncGroupService', 'segmentationService', 'cornerstoneViewportService']) {
    services[name].destroy();
  }
}

const LAYOUT = {
  id: `${DEFAULT}.layoutTemplateModule.viewerLayout`,
  props: {
    leftPanels: [`${DEFAULT}.panelModule.seriesList`],
    leftPanelResizable: true,
    rightPanels: [`${OURS}.panelModule.proxyprompt`, `${CORNERSTONE}.panelModule.panelSegmentationWithToolsLabelMap`],
    rightPanelResizable: true,
    rightPanelInitialExpandedWidth: 340,
    viewports: [
      { namespace: `${CORNERSTONE}.viewportModule.cornerstone`, displaySetsToDisplay: [STACK] },
      { namespace: `${SEG}.viewportModule.dicom-seg`, displaySetsToDisplay: [SEGS] },
    ],
  },
};

const extensions = { [DEFAULT]: '^3.0.0', [CORNERSTONE]: '^3.0.0', [SEG]: '^3.0.0', [OURS]: '^1.0.0' };

export default {
  id: '@proxyprompt/mode',
  extensionDependencies: extensions,
  modeFactory: () => ({
    id: '@proxyprompt/mode',
    routeName: 'proxyprompt',
    displayName: 'Proxy Prompt',
    hide: false,
    toolbarButtons: [{ $reference: 'cornerstone.toolbarButtons' }, { $reference: 'cornerstone.segmentationToolbarButtons' }],
    toolbarSections: [
      { $reference: 'cornerstone.segmentationModeToolbarSections' },
      { $reference: 'cornerstone.segmentationToolbarSections' },
    ],
    toolGroupAdditions: {},
    onModeEnter,
    onModeExit,
    validationTags: { study: [], series: [] },
    isValidMode: ({ modalities }) => ({
      valid: modalities.split('\\').some(modality => !NO_IMAGES.includes(modality)),
      description: 'This study has no images',
    }),
    routes: [{ path: 'template', layoutTemplate: () => structuredClone(LAYOUT) }],
    extensions,
    hangingProtocol: ['@ohif/mnGrid'],
    sopClassHandlers: [SEGS, STACK],
  }),
};
