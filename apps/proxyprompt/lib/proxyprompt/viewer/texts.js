/* What the panel says, in words: about trainings, about failures, about what a result rests on. */
window.proxyprompt = (() => {
  /* What is known of the training that runs, or of the last one; below it, line by line, the warnings. */
  function story(info, running) {
    const [stats] = Object.values(info.train_stats ?? {});
    if (running) {
      const far = `${stats?.message}, epoch ${stats?.epoch} of ${stats?.total_epochs}`;
      return [stats?.status === 'running' ? far : 'starting'];
    }
    const fate = { published: 'is used from now on', refused: 'is not used', unproven: 'is not used yet' };
    const said = stats?.version ? `${stats.version} ${fate[stats.status]}: ${stats.message}` : (stats?.message ?? '');
    return [said, ...(stats?.warnings ?? [])];
  }

  /* Why a request failed, in the server's words. */
  function reason(error) {
    try {
      const { data } = error.response;
      return (data instanceof ArrayBuffer ? JSON.parse(new TextDecoder().decode(data)) : data).detail;
    } catch {
      return `The server did not answer as expected: ${error.message ?? error.status}`;
    }
  }

  /* What the result rests on, under the panel's buttons. */
  function tell(answer, slices, nameOf) {
    const percent = value => (value === null || value === undefined ? '–' : `${Math.round(100 * value)} %`);
    const row = (tag, cells) => {
      const made = document.createElement('tr');
      const style = 'padding-right: 6px';
      made.append(...cells.map(text => Object.assign(document.createElement(tag), { textContent: text, style })));
      return made;
    };
    const table = (head, rows) => {
      const made = document.createElement('table');
      made.append(row('th', head), ...rows.map(cells => row('td', cells)));
      made.style.cssText = 'width: 100%; text-align: left; margin-top: 6px';
      return made;
    };
    const where = found => (slices > 1 ? `, ${found.slices} of ${slices} slices` : '');
    const structures = Object.entries(answer.structures ?? {}).map(([name, found]) => [
      name,
      found.voxels ? percent(found.presence_max) + where(found) : 'not found',
      percent(found.agreement),
    ]);
    const used = answer.supports ?? [];
    const supports = [...new Set(used.map(one => one.id))].map(id => {
      const own = used.filter(one => one.id === id);
      const which = own.map(one => one.slice + 1).sort((a, b) => a - b);
      const similarity = Math.max(...own.map(one => one.similarity));
      return [`${nameOf(id)}, slice ${which.join(', ')}`, percent(similarity)];
    });
    const lines = [...(answer.warnings ?? []), `${answer.adapter ?? ''} · ${answer.disclaimer ?? ''}`].map(text =>
      Object.assign(document.createElement('p'), { textContent: text }));
    document
      .getElementById('proxyprompt-answer')
      .replaceChildren(
        table(['Structure', 'Present', 'Supports agree'], structures),
        table(['Support', 'Similarity'], supports),
        ...lines
      );
  }

  return { reason, story, tell };
})();
