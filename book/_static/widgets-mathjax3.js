// Two things html-manager expects and this site does otherwise. Loaded after require.js, before embed-amd.js.
(function () {
  // 1. Its modules take the folder of their icon font from their own address, which require.js makes up
  //    relative to the page; all of them, and the font, lie in vendor/.
  const base = new URL(".", document.currentScript.src).href;
  requirejs.config({ paths: { "@jupyter-widgets": base + "vendor", "@jupyter-widgets/html-manager/dist": base + "vendor" } });

  // 2. It typesets labels through MathJax 2's queue; MathJax 3 has promises. Widgets are drawn on the
  //    load event, so the entry point is put in place by an earlier listener of the same event.
  function addQueue() {
    if (!window.MathJax || !MathJax.startup || MathJax.Hub) return;
    MathJax.Hub = {
      Queue: function (command) {
        const node = command[2];
        MathJax.startup.promise = MathJax.startup.promise.then(() => MathJax.typesetPromise([node]));
      },
    };
  }
  addQueue();
  window.addEventListener("load", addQueue);
})();
