// SPDX-License-Identifier: Apache-2.0
// Runs before the first paint, so that no page flashes in the other theme. No module: modules wait for the page.
{
  const chosen = localStorage.getItem("linewatch-theme");
  if (chosen === "dark" || chosen === "light") document.documentElement.dataset.theme = chosen;
}
