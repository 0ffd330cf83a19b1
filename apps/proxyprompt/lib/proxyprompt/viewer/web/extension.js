/* Our extension of OHIF: a panel. OHIF does not hand out its React, so the panel is an element that we fill ourselves. */
import { enter, leave, mount } from './panel.js';

/* A React 18 element, by hand: a plain <div> that is given to `mount`. */
const element = ref => ({
  $$typeof: Symbol.for('react.element'),
  type: 'div',
  key: null,
  props: { className: 'pp-panel', 'data-cy': 'proxyprompt-panel' },
  ref,
  _owner: null,
});

export default {
  id: '@proxyprompt/extension',
  onModeEnter: ({ servicesManager, commandsManager }) => enter({ services: servicesManager.services, commandsManager }),
  onModeExit: leave,
  getPanelModule: () => [
    {
      name: 'proxyprompt',
      iconName: 'tab-segmentation',
      iconLabel: 'Proxy Prompt',
      label: 'Proxy Prompt',
      component: () => element(mount),
    },
  ],
};
