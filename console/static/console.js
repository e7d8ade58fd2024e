// Live updates: when the server says that something has changed, the page asks for
// itself and takes the new main part. Without this script everything works, but live.
'use strict';
(() => {
  const button = document.getElementById('live');
  const refreshed = ['', 'outbox', 'failures', 'operations', 'operation', 'queues', 'books'];
  const here = location.pathname.split('/').pop();
  if (!window.EventSource || !refreshed.includes(here)) return;
  let live = true, waiting = false, source;
  const busy = () => {
    const main = document.getElementById('main');
    return main.querySelector('details[open]') || main.querySelector('form :focus') || String(getSelection()) !== '';
  };
  const refresh = async () => {
    if (!live || waiting || busy()) return;
    waiting = true;
    try {
      const answer = await fetch(location.href, { credentials: 'same-origin', redirect: 'error' });
      if (!answer.ok) return;
      const page = new DOMParser().parseFromString(await answer.text(), 'text/html');
      const fresh = page.getElementById('main'), main = document.getElementById('main');
      if (fresh && !busy()) main.replaceChildren(...fresh.childNodes);
    } catch { /* the next event tries again */ } finally { waiting = false; }
  };
  const open = () => {
    source = new EventSource('events?page=' + here);
    source.addEventListener('change', refresh);
  };
  button.hidden = false;
  button.addEventListener('click', () => {
    live = !live;
    button.setAttribute('aria-pressed', String(live));
    button.textContent = live ? 'Live' : 'Paused';
    if (live) { open(); refresh(); } else source.close();
  });
  addEventListener('pagehide', () => source.close());
  open();
})();
