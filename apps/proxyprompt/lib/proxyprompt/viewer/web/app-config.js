/* How the viewer runs on this server. Read before anything else; see extension.js and mode.js for what is ours. */
window.config = {
  routerBasename: '/ohif',
  extensions: ['@proxyprompt/extension'],
  modes: ['@proxyprompt/mode'],
  modesConfiguration: Object.fromEntries(
    ['basic', 'longitudinal', 'segmentation', 'tmtv', 'microscopy', 'preclinical-4d', 'basic-dev-mode', 'test', 'usannotation'].map(
      name => [`@ohif/mode-${name}`, { hide: { $set: true } }]
    )
  ),
  customizationService: {},
  showStudyList: true,
  maxNumberOfWebWorkers: 2,
  showWarningMessageForCrossOrigin: false,
  showCPUFallbackMessage: true,
  showLoadingIndicator: true,
  strictZSpacingForVolumeViewport: true,
  investigationalUseDialog: { option: 'never' }, // the panel says it, without covering the image
  defaultDataSourceName: 'dicomweb',
  dataSources: [
    {
      namespace: '@ohif/extension-default.dataSourcesModule.dicomweb',
      sourceName: 'dicomweb',
      configuration: {
        friendlyName: 'Studies of this server',
        name: 'dicomweb',
        qidoRoot: '/proxy/dicom/qido',
        wadoRoot: '/proxy/dicom/wado',
        wadoUriRoot: '/proxy/dicom/wado',
        qidoSupportsIncludeField: true,
        imageRendering: 'wadors',
        thumbnailRendering: 'wadors',
        enableStudyLazyLoad: true,
        supportsFuzzyMatching: false,
        supportsWildcard: true,
        bulkDataURI: { enabled: true },
      },
    },
  ],
};
