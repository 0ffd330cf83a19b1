/* Elements of the page, without a library. */

/* h('button.main', { title: 'Run', onclick }, 'Run'): an element with classes, properties and children. */
export function h(kind, properties = {}, ...children) {
  const [tag, ...classes] = kind.split('.');
  const element = document.createElement(tag || 'div');
  if (classes.length) {
    element.className = classes.join(' ');
  }
  for (const [name, value] of Object.entries(properties)) {
    if (name in element && name !== 'list' && name !== 'style') {
      element[name] = value;
    } else if (value !== null && value !== undefined && value !== false) {
      element.setAttribute(name, value);
    }
  }
  element.append(...children.flat().filter(child => child !== null && child !== undefined && child !== false));
  return element;
}

export const css = ([r, g, b]) => `rgb(${r}, ${g}, ${b})`;

/* A question over the page; resolves to the value of the button that was pressed, null for Escape. */
export function ask(text, answers) {
  return new Promise(resolve => {
    const done = value => {
      dialog.remove();
      resolve(value);
    };
    const dialog = h(
      'dialog.pp-dialog',
      { oncancel: () => done(null) },
      h('p', {}, text),
      h(
        'div.pp-row',
        {},
        answers.map(([label, value], n) =>
          h(n ? 'button.pp-button' : 'button.pp-button.pp-main', { onclick: () => done(value) }, label)
        )
      )
    );
    document.body.append(dialog);
    dialog.showModal();
  });
}

/* A question for a text; resolves to it, null for Escape or nothing. */
export function askText(text, offered = []) {
  return new Promise(resolve => {
    const done = value => {
      dialog.remove();
      resolve(value?.trim() || null);
    };
    const field = h('input.pp-field', { list: 'pp-offered', autocomplete: 'off' });
    const dialog = h(
      'dialog.pp-dialog',
      { oncancel: () => done(null) },
      h(
        'form',
        {
          method: 'dialog',
          onsubmit: event => {
            event.preventDefault();
            done(field.value);
          },
        },
        h('p', {}, text),
        field,
        h('datalist', { id: 'pp-offered' }, offered.map(name => h('option', { value: name }))),
        h(
          'div.pp-row',
          {},
          h('button.pp-button.pp-main', { type: 'submit' }, 'OK'),
          h('button.pp-button', { type: 'button', onclick: () => done(null) }, 'Cancel')
        )
      )
    );
    document.body.append(dialog);
    dialog.showModal();
    field.focus();
  });
}
