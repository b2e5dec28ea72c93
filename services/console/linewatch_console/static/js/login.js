// SPDX-License-Identifier: Apache-2.0
// A link that led here, such as one in an announcement, leads on after signing in: the form keeps its fragment.
const form = document.querySelector("form");
if (form) form.action += window.location.hash;
// An identity provider leads back without one: this tab keeps it until the page is there (console.js).
document.querySelector("a[href='/oidc/start']")?.addEventListener("click", () => {
  if (window.location.hash) sessionStorage.setItem("linewatch-leads-to", window.location.hash);
});
