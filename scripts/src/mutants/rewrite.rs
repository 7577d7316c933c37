//! One source file with all its mutants in it, each asleep until its number is chosen.

use std::collections::BTreeSet;

use proc_macro2::Span;
use syn::spanned::Spanned;
use syn::visit_mut::{self, VisitMut};
use syn::{Attribute, Block, Expr, File, Ident, ReturnType, Signature, Stmt, Type, UnOp, parse_quote};

use super::{Mutant, shapes};

/// Rewrites files, and numbers their mutants from 1 on.
pub struct Rewriter<'a> {
    /// Names of those that are not to be put in: the compiler refuses them.
    refused: &'a BTreeSet<String>,
    /// The mutants so far, refused ones left out.
    mutants: Vec<Mutant>,
    names: BTreeSet<String>,
    next: u32,
    file: String,
    text: String,
    switch: syn::Path,
    function: String,
    returns_nothing: bool,
    must_diverge: bool,
}

/// A piece of the original.
struct Piece {
    span: Span,
    text: String,
}

impl<'a> Rewriter<'a> {
    /// A rewriter that leaves these numbers out.
    pub fn new(refused: &'a BTreeSet<String>) -> Self {
        Self {
            refused,
            mutants: Vec::new(),
            names: BTreeSet::new(),
            next: 1,
            file: String::new(),
            text: String::new(),
            switch: parse_quote!(wal::mutant::at),
            function: String::new(),
            returns_nothing: false,
            must_diverge: false,
        }
    }

    /// The file with its mutants.
    pub fn rewrite(&mut self, file: &str, text: String) -> Result<String, String> {
        let mut parsed: File = syn::parse_file(&text).map_err(|error| format!("{file}: {error}"))?;
        self.switch = if file.starts_with("wal/") {
            parse_quote!(crate::mutant::at)
        } else {
            parse_quote!(wal::mutant::at)
        };
        file.clone_into(&mut self.file);
        self.text = text;
        self.visit_file_mut(&mut parsed);
        Ok(prettyplease::unparse(&parsed))
    }

    /// What was put in.
    pub fn finish(self) -> Vec<Mutant> {
        self.mutants
    }

    fn piece(&self, item: &impl Spanned) -> Piece {
        let span = item.span();
        let text = self.text.get(span.byte_range()).unwrap_or_default();
        Piece { span, text: text.split_whitespace().collect::<Vec<_>>().join(" ") }
    }

    /// The switch of a new mutant; nothing if the compiler refuses it.
    fn switch(&mut self, piece: &Piece, mutated: String) -> Option<Expr> {
        let number = self.next;
        self.next += 1;
        let mut mutant = Mutant {
            number,
            file: self.file.clone(),
            line: piece.span.start().line,
            function: self.function.clone(),
            original: piece.text.clone(),
            mutated,
            twin: 0,
        };
        while !self.names.insert(mutant.name()) {
            mutant.twin += 1;
        }
        if self.refused.contains(&mutant.name()) {
            return None;
        }
        self.mutants.push(mutant);
        let (path, literal) = (&self.switch, proc_macro2::Literal::u32_unsuffixed(number));
        Some(parse_quote!(#path(#literal)))
    }

    fn rewritten(&mut self, expression: &Expr, piece: &Piece, operands: &[String]) -> Option<Expr> {
        match expression {
            Expr::Binary(binary) if !shapes::binds(expression) => {
                let [left, right] = operands else { return None };
                let mut instead = Vec::new();
                for (symbol, operator) in shapes::mistaken(&binary.op) {
                    if let Some(on) = self.switch(piece, format!("{left} {symbol} {right}")) {
                        instead.push((on, operator()));
                    }
                }
                (!instead.is_empty()).then(|| shapes::operation(binary, &instead))
            }
            Expr::Unary(unary) if matches!(unary.op, UnOp::Not(_)) => {
                let on = self.switch(piece, operands.first()?.clone())?;
                Some(shapes::inverted(expression, &on))
            }
            Expr::Lit(_) => {
                let literal = shapes::integer(expression)?;
                let mut instead = Vec::new();
                for other in shapes::beside(literal) {
                    if let Some(on) = self.switch(piece, other.to_string()) {
                        instead.push((on, other));
                    }
                }
                (!instead.is_empty()).then(|| shapes::number(literal, &instead))
            }
            Expr::MethodCall(call) if call.method == "max" || call.method == "min" => {
                let other = if call.method == "max" { "min" } else { "max" };
                let on = self.switch(piece, format!("{other} instead of {}", call.method))?;
                let mut mutated = call.clone();
                mutated.method = Ident::new(other, call.method.span());
                Some(shapes::either(&on, &mutated.into(), expression))
            }
            _ => None,
        }
    }

    /// A condition of `if` or `while`, visited before.
    fn condition(&mut self, condition: &mut Expr, piece: &Piece, loops: bool) {
        if shapes::binds(condition) || loops {
            if let Some(on) = self.switch(piece, "false".into()) {
                *condition = shapes::never(condition, &on);
            }
        } else if matches!(
            condition,
            Expr::Call(_) | Expr::MethodCall(_) | Expr::Path(_) | Expr::Field(_) | Expr::Macro(_)
        ) && !piece.text.contains("mutant!")
            && let Some(on) = self.switch(piece, format!("!({})", piece.text))
        {
            *condition = shapes::inverted(condition, &on);
        }
    }

    /// A function's body, visited before: answers that need no thought.
    fn body(&mut self, signature: &Signature, block: &mut Block) {
        let answers: &[&str] = match &signature.output {
            ReturnType::Type(_, answer) => match last_name(answer).as_deref() {
                Some("bool") => &["true", "false"],
                Some("Option") => &["None"],
                Some("Result") if is_result_of_nothing(answer) => &["Ok(())"],
                _ => &[],
            },
            ReturnType::Default => &[],
        };
        let piece = Piece { span: signature.ident.span(), text: format!("fn {}", signature.ident) };
        for (at, answer) in answers.iter().enumerate() {
            if let Some(on) = self.switch(&piece, format!("{} returns {answer}", signature.ident)) {
                let answer: Expr = syn::parse_str(answer).expect("an expression");
                block.stmts.insert(at.min(block.stmts.len()), shapes::early(&answer, &on));
            }
        }
    }

    fn function(&mut self, attributes: &[Attribute], signature: &Signature, block: &mut Block) {
        if signature.constness.is_some() || signature.ident == "fmt" || is_of_tests(attributes) {
            return;
        }
        let outer =
            (std::mem::replace(&mut self.function, signature.ident.to_string()), self.returns_nothing);
        self.returns_nothing = matches!(signature.output, ReturnType::Default);
        self.visit_block_mut(block);
        self.body(signature, block);
        (self.function, self.returns_nothing) = outer;
    }

    fn is_removable(&self, statement: &Stmt) -> bool {
        let Stmt::Expr(expression, Some(_)) = statement else { return false };
        match expression {
            Expr::Call(call) => !matches!(&*call.func, Expr::Path(path) if path.path.is_ident("drop")),
            // What only looks whether all is well is no decision.
            Expr::MethodCall(call) => call.method != "check" && call.method != "check_step",
            Expr::Assign(_) => true,
            Expr::Try(inner) => matches!(&*inner.expr, Expr::Call(_) | Expr::MethodCall(_)),
            Expr::Binary(binary) => shapes::is_assignment(&binary.op),
            Expr::Return(back) => back.expr.is_none() && self.returns_nothing && !self.must_diverge,
            _ => false,
        }
    }
}

impl VisitMut for Rewriter<'_> {
    fn visit_expr_mut(&mut self, expression: &mut Expr) {
        let piece = self.piece(expression);
        let operands: Vec<String> = match expression {
            Expr::Binary(binary) => vec![self.piece(&binary.left).text, self.piece(&binary.right).text],
            Expr::Unary(unary) => vec![self.piece(&unary.expr).text],
            _ => Vec::new(),
        };
        let condition = match expression {
            Expr::If(branch) => Some(self.piece(&branch.cond)),
            Expr::While(repeat) => Some(self.piece(&repeat.cond)),
            _ => None,
        };
        if let (Expr::If(branch), Some(condition)) = (&mut *expression, &condition)
            && waits_for_switch(&condition.text)
        {
            // What only a bug of the zoo does is nobody's mistake.
            if let Some((_, otherwise)) = &mut branch.else_branch {
                self.visit_expr_mut(otherwise);
            }
            return;
        }
        visit_mut::visit_expr_mut(self, expression);
        match (expression, condition) {
            (Expr::If(branch), Some(condition)) => self.condition(&mut branch.cond, &condition, false),
            (Expr::While(repeat), Some(condition)) => self.condition(&mut repeat.cond, &condition, true),
            (expression, _) => {
                if let Some(new) = self.rewritten(expression, &piece, &operands) {
                    *expression = new;
                }
            }
        }
    }

    fn visit_arm_mut(&mut self, arm: &mut syn::Arm) {
        let piece = arm.guard.as_ref().map(|(_, guard)| self.piece(guard));
        visit_mut::visit_arm_mut(self, arm);
        let (Some((_, guard)), Some(piece)) = (&mut arm.guard, piece) else { return };
        // A switch of the zoo is off, so what waits for it alone is true or false already.
        let (on, off) = (is_switch(&piece.text), piece.text.strip_prefix('!').is_some_and(is_switch));
        let always = if off { None } else { self.switch(&piece, "true".into()) };
        let never = if on { None } else { self.switch(&piece, "false".into()) };
        **guard = shapes::guard(guard, always.as_ref(), never.as_ref());
    }

    fn visit_block_mut(&mut self, block: &mut Block) {
        for statement in &mut block.stmts {
            let piece = self.piece(statement);
            let removable = self.is_removable(statement);
            self.visit_stmt_mut(statement);
            if removable && let Some(on) = self.switch(&piece, "(left out)".into()) {
                *statement = shapes::removable(statement, &on);
            }
        }
    }

    fn visit_local_init_mut(&mut self, init: &mut syn::LocalInit) {
        self.visit_expr_mut(&mut init.expr);
        if let Some((_, diverge)) = &mut init.diverge {
            let outer = std::mem::replace(&mut self.must_diverge, true);
            self.visit_expr_mut(diverge);
            self.must_diverge = outer;
        }
    }

    fn visit_item_fn_mut(&mut self, item: &mut syn::ItemFn) {
        self.function(&item.attrs, &item.sig, &mut item.block);
    }

    fn visit_impl_item_fn_mut(&mut self, item: &mut syn::ImplItemFn) {
        self.function(&item.attrs, &item.sig, &mut item.block);
    }

    fn visit_item_impl_mut(&mut self, item: &mut syn::ItemImpl) {
        let of = item.trait_.as_ref().and_then(|(_, path, _)| path.segments.last());
        if !of.is_some_and(|name| name.ident == "Display" || name.ident == "Debug")
            && !is_of_tests(&item.attrs)
        {
            item.items.iter_mut().for_each(|item| self.visit_impl_item_mut(item));
        }
    }

    fn visit_item_mod_mut(&mut self, item: &mut syn::ItemMod) {
        if !is_of_tests(&item.attrs) {
            visit_mut::visit_item_mod_mut(self, item);
        }
    }

    fn visit_expr_repeat_mut(&mut self, repeat: &mut syn::ExprRepeat) {
        self.visit_expr_mut(&mut repeat.expr);
    }

    // The rest is decided when compiling, or is no decision.
    fn visit_item_const_mut(&mut self, _: &mut syn::ItemConst) {}
    fn visit_item_static_mut(&mut self, _: &mut syn::ItemStatic) {}
    fn visit_impl_item_const_mut(&mut self, _: &mut syn::ImplItemConst) {}
    fn visit_item_enum_mut(&mut self, _: &mut syn::ItemEnum) {}
    fn visit_item_trait_mut(&mut self, _: &mut syn::ItemTrait) {}
    fn visit_expr_const_mut(&mut self, _: &mut syn::ExprConst) {}
    fn visit_pat_mut(&mut self, _: &mut syn::Pat) {}
    fn visit_type_mut(&mut self, _: &mut Type) {}
    fn visit_path_mut(&mut self, _: &mut syn::Path) {}
    fn visit_generics_mut(&mut self, _: &mut syn::Generics) {}
    fn visit_attribute_mut(&mut self, _: &mut Attribute) {}
    fn visit_macro_mut(&mut self, _: &mut syn::Macro) {}
}

/// Of tests, or of the exhaustive search alone.
fn is_of_tests(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("test")
            || attribute.path().is_ident("cfg")
                && attribute.meta.require_list().is_ok_and(|cfg| {
                    let condition: String = cfg.tokens.to_string().split_whitespace().collect();
                    matches!(condition.as_str(), "test" | "feature=\"sim\"")
                })
    })
}

/// A bug of the zoo and nothing else.
fn is_switch(condition: &str) -> bool {
    let path = condition.strip_prefix("wal::").or_else(|| condition.strip_prefix("crate::"));
    let name = path.and_then(|path| path.strip_prefix("mutant!(\"")?.strip_suffix("\")"));
    name.is_some_and(|name| !name.contains('"'))
}

/// Never true while that bug is out.
fn waits_for_switch(condition: &str) -> bool {
    !condition.contains("||") && condition.split(" && ").any(is_switch)
}

fn last_name(of: &Type) -> Option<String> {
    let Type::Path(path) = of else { return None };
    path.path.segments.last().map(|segment| segment.ident.to_string())
}

fn is_result_of_nothing(of: &Type) -> bool {
    let text = quote::quote!(#of).to_string();
    text.contains("< ()")
}

#[cfg(test)]
mod tests {
    use super::Rewriter;
    use std::collections::BTreeSet;

    fn rewritten(text: &str, refused: &[&str]) -> (String, Vec<String>) {
        let refused: BTreeSet<_> = refused.iter().map(|name| (*name).to_owned()).collect();
        let mut rewriter = Rewriter::new(&refused);
        let new = rewriter.rewrite("src/a.rs", text.into()).expect("it is Rust");
        let line = |of: &super::Mutant| format!("{}: {} -> {}", of.line, of.original, of.mutated);
        (new, rewriter.finish().iter().map(line).collect())
    }

    #[test]
    fn each_place_that_decides_has_its_mutants() {
        let (_, mutants) = rewritten(
            "fn f(a: u32, b: u32) -> bool {\n    if let Some(c) = g(a) {\n        h();\n    }\n    !(a < b) && a.max(b) == 7\n}",
            &[],
        );
        let expected = [
            "2: let Some(c) = g(a) -> false",
            "3: h(); -> (left out)",
            "5: a < b -> a <= b",
            "5: a < b -> a >= b",
            "5: !(a < b) -> (a < b)",
            "5: a.max(b) -> min instead of max",
            "5: 7 -> 8",
            "5: 7 -> 6",
            "5: a.max(b) == 7 -> a.max(b) != 7",
            "5: !(a < b) && a.max(b) == 7 -> !(a < b) || a.max(b) == 7",
            "1: fn f -> f returns true",
            "1: fn f -> f returns false",
        ];
        let mut sorted = mutants.clone();
        sorted.sort();
        let mut all = expected.map(str::to_owned);
        all.sort();
        assert_eq!(sorted, all);
    }

    #[test]
    fn what_is_no_decision_of_the_program_stays_as_it_is() {
        let text = "const A: u32 = 1 + 2;\n\n#[derive(Debug)]\nenum B {\n    C = 4,\n}\n\nconst fn d() -> [u8; 3] {\n    [0; 3]\n}\n\n\
                    #[cfg(test)]\nmod tests {\n    fn e() -> bool {\n        1 < 2\n    }\n}\n";
        let (new, mutants) = rewritten(text, &[]);
        assert!(mutants.is_empty(), "{mutants:?}");
        assert!(!new.contains("mutant::at"), "{new}");
    }

    #[test]
    fn a_switch_of_the_zoo_and_a_check_are_no_decisions() {
        let (_, mutants) = rewritten(
            "fn f(a: u8) -> u8 {\n    self.check_step(&a);\n    match a {\n        _ if !wal::mutant!(\"b\") => 1,\n        \
             _ if a > 1 && !wal::mutant!(\"c\") => 1,\n        _ => a,\n    }\n}\n\n\
             fn g() {\n    if wal::mutant!(\"d\") {\n        h();\n    }\n}\n\n\
             fn k(a: u8) {\n    if a > 1 && crate::mutant!(\"e\") {\n        h();\n    }\n}\n\n\
             #[cfg(feature = \"sim\")]\nfn i() {\n    j();\n}",
            &[],
        );
        let guards: Vec<_> =
            mutants.iter().filter(|line| line.ends_with("true") || line.ends_with("-> false")).collect();
        assert_eq!(
            guards,
            [
                "4: !wal::mutant!(\"b\") -> false",
                "5: a > 1 && !wal::mutant!(\"c\") -> true",
                "5: a > 1 && !wal::mutant!(\"c\") -> false",
            ]
        );
        assert!(!mutants.iter().any(|line| line.contains("(left out)")), "{mutants:?}");
    }

    #[test]
    fn a_refused_mutant_is_left_out_and_the_others_keep_their_numbers() {
        let text = "fn f(a: u32) -> u32 {\n    a + 1\n}";
        let (whole, all) = rewritten(text, &[]);
        let (less, rest) = rewritten(text, &["src/a.rs f: 1 -> 2 #0"]);
        assert_eq!(all, ["2: 1 -> 2", "2: 1 -> 0", "2: a + 1 -> a - 1"]);
        assert_eq!(rest, ["2: 1 -> 0", "2: a + 1 -> a - 1"]);
        assert!(whole.contains("at(1)") && !less.contains("at(1)") && less.contains("at(3)"), "{less}");
    }
}
